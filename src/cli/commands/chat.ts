/**
 * `kto chat`: a conversation with a model, line by line. Answers go to stdout as they come, all else to stderr. The
 * keys and values of the conversation stay on the device, so that each turn computes only its new tokens.
 */
import { createInterface } from "node:readline/promises";
import { textFolder } from "../../engine/model/config/folder.ts";
import { Generator } from "../../engine/model/generate/generate.ts";
import type { SamplingOptions } from "../../engine/model/generate/sample.ts";
import type { ChatTemplate } from "../../engine/text/chat-template.ts";
import { TextStream } from "../../engine/text/text-stream.ts";
import { loadTokenizer, type Tokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError } from "../../errors.ts";
import { type ChatOptions, chatDescription } from "../descriptions/chat.ts";
import { command } from "../options/command.ts";
import { loadModel } from "../session/models.ts";
import { requireTemplate } from "../session/prompts.ts";
import { withDevice } from "../session/rows.ts";
import { endTokens, resolveSampling, tellCache } from "../session/sampling.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(chatDescription, runChat);

/** Everything that one turn of the conversation uses. */
interface Talk {
  readonly options: ChatOptions;
  readonly output: Output;
  readonly generator: Generator;
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  readonly sampling: SamplingOptions;
  readonly maxLength: number;
  /** A person types the questions, so that a full conversation need not end the program. */
  readonly terminal: boolean;
  readonly interrupted: () => boolean;
}

type Message = Readonly<Record<"role" | "content", string>>;

async function runChat(options: ChatOptions, output: Output): Promise<void> {
  await withDevice(options, output, async (device) => {
    const model = await loadModel(device, options, output);
    const texts = await textFolder(model);
    const maxLength = Math.min(options.max_length, model.config.contextLength);
    const { stdin } = output.streams;
    if (stdin === undefined) throw new ConfigError("there is nothing to read questions from: give kto chat an input.");
    const terminal = output.streams.stderr.isTTY === true && "isTTY" in stdin && stdin.isTTY === true;
    let answering = false;
    let interrupted = false;
    const talk: Talk = {
      options,
      output,
      generator: new Generator(model, { maxBatch: 1, maxLength }),
      tokenizer: await loadTokenizer(texts),
      template: await requireTemplate(texts, options.chat_template_path),
      sampling: await resolveSampling(options, model.folder, output),
      maxLength,
      terminal,
      interrupted: () => interrupted,
    };
    tellCache(talk.generator, { sequences: 1, maxLength }, output);
    const lines = createInterface({
      input: stdin,
      ...(terminal ? { output: process.stderr, terminal: true, prompt: "> " } : { terminal: false }),
    });
    let closed = false;
    lines.on("close", () => {
      closed = true;
    });
    lines.on("SIGINT", () => {
      if (answering) interrupted = true;
      else lines.close();
    });
    if (terminal) output.info("/reset starts a new conversation, /system text sets the system message, /exit ends.");
    let system = options.system;
    let messages: Message[] = opening(system);
    let turn = 0;
    try {
      if (terminal) lines.prompt();
      for await (const line of lines) {
        const [, word, rest = ""] = /^\/(\w+)(?:\s+(.*))?$/.exec(line.trim()) ?? [];
        if (word === "exit") break;
        if (word === "reset" || word === "system") {
          if (word === "system") system = rest === "" ? undefined : rest;
          messages = opening(system);
          output.info("a new conversation has begun.");
        } else if (word !== undefined) {
          output.warning(`there is no /${word}; there are /reset, /system and /exit.`);
        } else if (line.trim() !== "") {
          answering = true;
          interrupted = false;
          messages = await answer(talk, [...messages, { role: "user", content: line }], turn++);
          answering = false;
        }
        if (terminal && !closed) lines.prompt();
      }
    } finally {
      lines.close();
    }
  });
}

function opening(system: string | undefined): Message[] {
  return system === undefined ? [] : [{ role: "system", content: system }];
}

/** Streams the answer to a conversation; returns the conversation with it. */
async function answer(talk: Talk, messages: Message[], turn: number): Promise<Message[]> {
  const { options, output, generator, tokenizer, template, sampling, maxLength } = talk;
  const variables = options.chat_template_kwargs ?? {};
  const text = template.render(messages, { addGenerationPrompt: true, variables });
  const ids = tokenizer.encode(text, { addSpecialTokens: false });
  if (ids.length >= maxLength) {
    const sentence = `The conversation takes ${ids.length} tokens, which leaves no room for an answer within ${maxLength}; start a new one with /reset, or raise max_length if the model's context allows it.`;
    if (!talk.terminal) throw new ConfigError(sentence);
    output.warning(sentence);
    return messages.slice(0, -1);
  }
  const stream = new TextStream(tokenizer, ids, { stopStrings: options.stop_strings });
  let content = "";
  const show = (piece: string) => {
    content += piece;
    if (!output.json && piece !== "") output.piece(piece);
  };
  const [result] = await working(output, "answering", async () => {
    return await generator.generate([ids], {
      ...sampling,
      eosTokenIds: endTokens(options, tokenizer, generator.model.config.eosTokenIds),
      maxNewTokens: options.max_new_tokens,
      seed: options.seed + turn,
      reusePrefix: true,
      onToken: (_, newIds) => {
        show(stream.push(newIds.at(-1) ?? 0));
        return stream.stopped || talk.interrupted() ? "stop" : undefined;
      },
    });
  });
  show(stream.end());
  const { ids: newIds = [], finish } = result ?? {};
  if (output.json) {
    const prompt = messages.at(-1)?.content;
    output.jsonLine({ turn, prompt, completion: content, tokens: newIds.length, finish });
  } else {
    output.result("");
  }
  if (finish === "length" && ids.length + newIds.length >= maxLength) {
    output.warning(`the answer ends here: the conversation fills its ${maxLength} tokens; /reset starts a new one.`);
  }
  return [...messages, { role: "assistant", content }];
}
