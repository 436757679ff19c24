/** How tokens are drawn, where options, the model's generation_config.json and our own defaults meet. */
import { readGenerationDefaults } from "../../engine/model/config/generation-config.ts";
import type { SamplingOptions } from "../../engine/model/generate/sample.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
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
