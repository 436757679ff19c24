/**
 * Continuations of fixed prompts by a model as it is at the moment: what samples and judges look at. The same seed on
 * the same weights gives the same texts.
 */
import { Generator } from "../../engine/model/generate/generate.ts";
import type { SamplingOptions } from "../../engine/model/generate/sample.ts";
import type { Model } from "../../engine/model/model.ts";
import { decodeContinuation, type Tokenizer } from "../../engine/text/tokenizer.ts";

export interface ContinuationOptions {
  readonly maxNewTokens: number;
  readonly seed: number;
  readonly sampling: SamplingOptions;
}

/** Sequences whose caches are held at once. */
const MOST_SIDE_BY_SIDE = 32;

export class Continuations {
  readonly #generator: Generator;
  readonly #tokenizer: Tokenizer;
  readonly #prompts: readonly (readonly number[])[];
  readonly #options: ContinuationOptions;

  /**
   * Allocates the cache for these prompts, each of one token or more.
   *
   * @throws AdapterError when the adapter cannot hold it
   */
  constructor(
    model: Model,
    tokenizer: Tokenizer,
    prompts: readonly (readonly number[])[],
    options: ContinuationOptions,
  ) {
    const longest = prompts.reduce((most, { length }) => Math.max(most, length), 1);
    this.#generator = new Generator(model, {
      maxBatch: Math.max(1, Math.min(prompts.length, MOST_SIDE_BY_SIDE)),
      maxLength: Math.min(longest + options.maxNewTokens, model.config.contextLength),
    });
    this.#tokenizer = tokenizer;
    this.#prompts = prompts;
    this.#options = options;
  }

  /**
   * The text that follows each prompt, special tokens left out. Throws what `Generator.generate` does.
   *
   * @param onToken told how many tokens there are by now
   */
  async run(onToken?: (tokens: number) => void): Promise<string[]> {
    const { maxNewTokens, seed, sampling } = this.#options;
    let tokens = 0;
    const results = await this.#generator.generate(this.#prompts, {
      ...{ ...sampling, maxNewTokens, seed },
      onToken: () => {
        onToken?.(++tokens);
        return undefined;
      },
    });
    return results.map(({ ids }, index) => decodeContinuation(this.#tokenizer, this.#prompts[index] ?? [], ids));
  }

  /** Gives the device memory back. */
  free(): void {
    this.#generator.free();
  }
}
