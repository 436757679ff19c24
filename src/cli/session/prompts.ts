/**
 * Prompts of `kto generate`, `kto chat`, `kto eval` and a run's samples: texts and chats from the command line or a
 * file, and their token ids, through the model's chat template where needed. Sampling is elsewhere.
 */
import { overridden, parseExactJson } from "../../engine/files/exact-json.ts";
import { isJsonObject } from "../../engine/files/json-file.ts";
import { type ChatTemplate, loadChatTemplate } from "../../engine/text/chat-template.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, DatasetError, errorMessage } from "../../errors.ts";
import { partJoiner } from "../../kto/data/parts.ts";
import { type ChatMessage, placeOf, type RowSource } from "../../kto/data/types.ts";
import { readTextFile } from "../terminal/files.ts";

/** Options that say how a prompt becomes a chat. */
export interface PromptOptions {
  readonly chat?: boolean | undefined;
  readonly system?: string | undefined;
  readonly chat_template_path?: string | undefined;
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>> | undefined;
}

/** A chat, with the other values that its row gives to the template. */
interface ChatPrompt {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly unknown[];
  /** The row's `chat_template_kwargs`; they override the command's. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** Where it was read, for error messages. */
  readonly source: RowSource;
}

/** A text or a chat. */
export type Prompt = string | ChatPrompt;

/**
 * The prompts in order, those of the command line first.
 *
 * @throws FileError if the file cannot be read; DatasetError for a row without a prompt, naming file and line
 */
export async function readPrompts(options: {
  readonly prompt: readonly string[];
  readonly prompts_file?: string | undefined;
}): Promise<Prompt[]> {
  const file = options.prompts_file;
  if (file === undefined) return [...options.prompt];
  const text = await readTextFile(file, "prompts file");
  const rows = text.split(/\r?\n/).map((line, index) => ({ line, source: { file, line: index + 1 } }));
  const written = rows.filter(({ line }) => line.trim() !== "");
  const fromFile = /\.jsonl$/i.test(file)
    ? written.map(({ line, source }) => promptOfRow(line, source))
    : written.map(({ line }) => line);
  if (fromFile.length === 0) throw new DatasetError(`${file} holds no prompt.`);
  return [...options.prompt, ...fromFile];
}

function promptOfRow(line: string, source: RowSource): Prompt {
  const place = placeOf(source);
  let row: unknown;
  try {
    row = parseExactJson(line);
  } catch (error) {
    throw new DatasetError(`${place} is not valid JSON: ${errorMessage(error)}.`, { cause: error });
  }
  const fields = isJsonObject(row) ? row : {};
  const prompt = fields.messages ?? fields.prompt;
  if (typeof prompt === "string") return prompt;
  if (isChat(prompt)) {
    const { tools, chat_template_kwargs: variables } = fields;
    if (tools != null && !Array.isArray(tools)) throw new DatasetError(`${place}: "tools" is not a list.`);
    if (variables != null && !isJsonObject(variables)) {
      throw new DatasetError(`${place}: "chat_template_kwargs" is not an object of variables.`);
    }
    return { messages: prompt, source, ...(tools ? { tools } : {}), ...(variables ? { variables } : {}) };
  }
  throw new DatasetError(
    `${place} has no "prompt" that is text, nor a list of chat messages as "messages" or "prompt".`,
  );
}

function isChat(value: unknown): value is readonly ChatMessage[] {
  const isMessage = (one: unknown) => isJsonObject(one) && typeof one.role === "string";
  return Array.isArray(value) && value.length > 0 && value.every(isMessage);
}

/** A prompt as it is written to files: without the place where it was read. */
export function withoutSource(prompt: Prompt): string | Omit<ChatPrompt, "source"> {
  if (typeof prompt === "string") return prompt;
  const { source: _, ...chat } = prompt;
  return chat;
}

/** A chat as a judge reads it. */
export function promptText(prompt: Prompt): string {
  if (typeof prompt === "string") return prompt;
  const { messages } = prompt;
  const [only, ...more] = messages;
  const content = (message: ChatMessage | undefined) =>
    typeof message?.content === "string" ? message.content : JSON.stringify(message?.content);
  if (more.length === 0 && only?.role === "user") return content(only);
  return messages.map((message) => `${message.role}: ${content(message)}`).join("\n");
}

/**
 * Prompts to token ids: texts as they are, chats (and with `chat` texts too) through the model's chat template.
 * Contents that are lists of parts are treated as those of rows (`partJoiner`).
 */
export async function promptEncoder(
  prompts: readonly Prompt[],
  tokenizer: Tokenizer,
  folder: string,
  options: PromptOptions,
): Promise<(prompt: Prompt) => number[]> {
  const isChatting = options.chat === true || prompts.some((prompt) => typeof prompt !== "string");
  const template = isChatting ? await requireTemplate(folder, options.chat_template_path) : undefined;
  const joined = template === undefined ? undefined : partJoiner(template);
  return (prompt) => {
    if (template === undefined || joined === undefined || (typeof prompt === "string" && options.chat !== true)) {
      return tokenizer.encode(String(prompt));
    }
    const isChat = typeof prompt !== "string";
    const messages = isChat ? joined(prompt.messages, "prompt", prompt.source) : [{ role: "user", content: prompt }];
    const system = options.system === undefined ? [] : [{ role: "system", content: options.system }];
    const text = template.render([...system, ...messages], {
      addGenerationPrompt: true,
      ...(isChat && prompt.tools ? { tools: prompt.tools } : {}),
      variables: overridden(options.chat_template_kwargs ?? {}, (isChat ? prompt.variables : undefined) ?? {}),
    });
    return tokenizer.encode(text, { addSpecialTokens: false });
  };
}

/** @throws ConfigError if neither the model's folder nor chat_template_path has one */
export async function requireTemplate(folder: string, templatePath: string | undefined): Promise<ChatTemplate> {
  const template = await loadChatTemplate(folder, { templatePath });
  if (template !== undefined) return template;
  throw new ConfigError(
    `The model folder "${folder}" has no chat template; give one as chat_template_path, or let kto generate continue plain text.`,
  );
}
