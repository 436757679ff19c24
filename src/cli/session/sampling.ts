/** How tokens are drawn, where options, the model's generation_config.json and our own defaults meet. */
import { readGenerationDefaults } from "../../engine/model/config/generation-config.ts";
import type { Generator } from "../../engine/model/generate/generate.ts";
import type { SamplingOptions } from "../../engine/model/generate/sample.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { counted } from "../../errors.ts";
import type { Sampling } from "../options/sampling.ts";
import type { Output } from "../terminal/output.ts";

/**
 * The tokens that end a text: the model's, and each stop string that is one token by itself. Text alone would not show
 * the special ones, which are left out of it.
 */
export function endTokens(
  { stop_strings }: Pick<Sampling, "stop_strings">,
  tokenizer: Tokenizer,
  ofModel: readonly number[],
): number[] {
  const wanted = stop_strings.flatMap((text) => {
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    return ids.length === 1 && tokenizer.decode(ids) === text ? ids : [];
  });
  return [...new Set([...ofModel, ...wanted])];
}

/**
 * Tells the device memory that the keys and values of these sequences take, now and when they are as long as they may
 * be.
 */
export function tellCache(
  { cacheBytes }: Pick<Generator, "cacheBytes">,
  { sequences, maxLength }: { readonly sequences: number; readonly maxLength: number },
  output: Pick<Output, "info">,
): void {
  const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const { now, most } = cacheBytes;
  const later = most > now ? `, up to ${mebibytes(most)}` : "";
  output.info(
    `keys and values of ${counted(sequences, "sequence")} of at most ${maxLength} tokens: ${mebibytes(now)}${later}`,
  );
}

/**
 * Options given go before generation_config.json, which goes before our own defaults: sampling from all tokens.
 *
 * @param output is warned of what the file sets and nothing here does
 */
export async function resolveSampling(
  options: Sampling,
  modelFolder: string,
  output: Pick<Output, "warning">,
): Promise<SamplingOptions> {
  const file = await readGenerationDefaults(modelFolder);
  if (file.ignored.length > 0) {
    output.warning(
      `generation_config.json sets ${file.ignored.join(", ")}, which ${file.ignored.length === 1 ? "is" : "are"} not supported and ignored.`,
    );
  }
  // A temperature that is asked for says that tokens are to be drawn.
  const wantsSampling = options.do_sample ?? (options.temperature !== undefined ? true : file.doSample);
  const greedy = options.greedy || wantsSampling === false;
  return {
    temperature: greedy ? 0 : (options.temperature ?? file.temperature ?? 1),
    topK: Math.max(0, options.top_k ?? file.topK ?? 0),
    topP: options.top_p ?? file.topP ?? 1,
    minP: options.min_p ?? file.minP ?? 0,
    repetitionPenalty: options.repetition_penalty ?? file.repetitionPenalty ?? 1,
  };
}
