/** `kto generate`: samples continuations of prompts from a model. */
import { textFolder } from "../../engine/model/config/folder.ts";
import { type GeneratedSequence, Generator } from "../../engine/model/generate/generate.ts";
import { shareParts } from "../../engine/ranks/share.ts";
import { TextStream } from "../../engine/text/text-stream.ts";
import { loadTokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, counted } from "../../errors.ts";
import { checkSamePrompts } from "../../kto/run/same-run.ts";
import { type GenerateCommandOptions, generateDescription, refuseSeveral } from "../descriptions/generate.ts";
import { command } from "../options/command.ts";
import { loadModel } from "../session/models.ts";
import { type Prompt, promptEncoder, readPrompts } from "../session/prompts.ts";
import { openRanks } from "../session/ranks.ts";
import { withDevice } from "../session/rows.ts";
import { endTokens, resolveSampling, tellCache } from "../session/sampling.ts";
import type { Output } from "../terminal/output.ts";
import { type Progress, working } from "../terminal/work.ts";

export default command(generateDescription, runGenerate);

async function runGenerate(options: GenerateCommandOptions, output: Output): Promise<void> {
  const ranks = await openRanks(options, output);
  const prompts = await readPrompts(options);
  await withDevice(options, output, async (device) => {
    const model = await loadModel(device, options, output);
    const textsFolder = await textFolder(model);
    const tokenizer = await loadTokenizer(textsFolder);
    const sampling = await resolveSampling(options, model.folder, output);
    if (sampling.temperature === 0) refuseSeveral(options);
    const encode = await promptEncoder(prompts, tokenizer, textsFolder, options);
    const { contextLength } = model.config;
    const requests = prompts.flatMap((prompt, index) => {
      const ids = encode(prompt);
      if (ids.length + options.max_new_tokens > contextLength) {
        throw new ConfigError(
          `Prompt ${index + 1} has ${counted(ids.length, "token")} and max_new_tokens is ${options.max_new_tokens}, together more than the model's context of ${contextLength}: ask for fewer new tokens or shorten the prompt.`,
        );
      }
      return Array.from({ length: options.num_return_sequences }, () => ({ prompt, ids }));
    });
    const ids = requests.map((request) => request.ids);
    await checkSamePrompts(ranks, ids);
    const longest = Math.max(...ids.map(({ length }) => length));
    const maxLength = longest + options.max_new_tokens;
    const fitting = Math.max(1, Generator.mostSideBySide(model, maxLength));
    const sequences = Math.min(Math.ceil(requests.length / ranks.size), MOST_SIDE_BY_SIDE, fitting);
    const generator = new Generator(model, { maxBatch: sequences, maxLength });
    tellCache(generator, { sequences, maxLength }, output);
    // A chat's answer stands alone; a text goes on from its prompt.
    const openingOf = (prompt: Prompt) => (options.chat || typeof prompt !== "string" ? "" : prompt);
    const isLive = options.stream ?? (requests.length === 1 && output.streams.stdout.isTTY === true);
    const live = isLive && !output.json;
    const streams = requests.map(({ ids }) => new TextStream(tokenizer, ids, { stopStrings: options.stop_strings }));
    const texts = requests.map(() => "");
    // The first of several sequences is shown while it is generated, the others after it.
    let begun = false;
    const add = (index: number, piece: string) => {
      texts[index] = (texts[index] ?? "") + piece;
      if (!live || index > 0) return;
      // Not earlier: until the first token the display shows that something goes on.
      if (!begun) output.piece(openingOf(requests[0]?.prompt ?? ""));
      begun = true;
      if (piece !== "") output.piece(piece);
    };
    const what = `generating ${counted(ids.length, "text")}`;
    const generate = async (progress: Progress, places: readonly number[]): Promise<Text[]> => {
      let tokens = 0;
      const own = places.map((place) => ids[place] ?? []);
      const found = await generator.generate(own, {
        ...{ ...sampling, places },
        eosTokenIds: endTokens(options, tokenizer, model.config.eosTokenIds),
        maxNewTokens: options.max_new_tokens,
        seed: options.seed,
        onToken: (index, newIds) => {
          const stream = streams[index];
          progress(++tokens);
          add(index, stream?.push(newIds.at(-1) ?? 0) ?? "");
          return stream?.stopped ? "stop" : undefined;
        },
      });
      return found.map(({ ids: newIds, finish }, i) => {
        const place = places[i] ?? 0;
        add(place, streams[place]?.end() ?? "");
        return { completion: texts[place] ?? "", tokens: newIds.length, finish };
      });
    };
    const results = await working(
      output,
      what,
      (progress) => shareParts(ranks, ids.length, (places) => generate(progress, places)),
      "tokens",
    );
    if (ranks.rank > 0) return;
    for (const [index, { prompt }] of requests.entries()) {
      const { completion = "", tokens, finish } = results[index] ?? {};
      const shown = typeof prompt === "string" ? prompt : prompt.messages;
      if (output.json) output.jsonLine({ index, prompt: shown, completion, tokens, finish });
      else if (live && index === 0) output.result("");
      else output.result(`${index > 0 ? "\n" : ""}${openingOf(prompt)}${completion}`);
    }
  });
}

interface Text {
  readonly completion: string;
  readonly tokens: number;
  readonly finish: GeneratedSequence["finish"];
}

/** The most sequences that are generated at once. */
const MOST_SIDE_BY_SIDE = 64;
