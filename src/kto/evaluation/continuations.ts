/**
 * Continuations of fixed prompts by a model as it is at the moment: what samples and judges look at. The same seed on
 * the same weights gives the same texts.
 */
import { Generator } from "../../engine/model/generate/generate.ts";
import type { SamplingOptions } from "../../engine/model/generate/sample.ts";
import type { Model } from "../../engine/model/model.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { shareParts } from "../../engine/ranks/share.ts";
import { decodeContinuation, type Tokenizer } from "../../engine/text/tokenizer.ts";

export interface ContinuationOptions {
  readonly maxNewTokens: number;
  readonly seed: number;
  readonly sampling: SamplingOptions;
  /** Each continues some of the prompts, and all get the texts of all. Default: one process. */
  readonly ranks?: Communicator;
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
    const { size } = options.ranks ?? ALONE;
    const longest = prompts.reduce((most, { length }) => Math.max(most, length), 1);
    this.#generator = new Generator(model, {
      maxBatch: Math.max(1, Math.min(Math.ceil(prompts.length / size), MOST_SIDE_BY_SIDE)),
      maxLength: Math.min(longest + options.maxNewTokens, model.config.contextLength),
    });
    this.#tokenizer = tokenizer;
    this.#prompts = prompts;
    this.#options = options;
  }

  /**
   * The text that follows each prompt, special tokens left out. Throws what `Generator.generate` does. Every rank must
   * call it.
   *
   * @param onToken told how many tokens this rank has drawn by now
   */
  async run(onToken?: (tokens: number) => void): Promise<string[]> {
    const { maxNewTokens, seed, sampling, ranks = ALONE } = this.#options;
    let tokens = 0;
    return await shareParts(ranks, this.#prompts.length, async (places) => {
      const prompts = places.map((place) => this.#prompts[place] ?? []);
      const results = await this.#generator.generate(prompts, {
        ...{ ...sampling, maxNewTokens, seed, places },
        onToken: () => {
          onToken?.(++tokens);
          return undefined;
        },
      });
      return results.map(({ ids }, i) => decodeContinuation(this.#tokenizer, prompts[i] ?? [], ids));
    });
  }

  /** Gives the device memory back. */
  free(): void {
    this.#generator.free();
  }
}
