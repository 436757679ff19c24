/**
 * Where the random numbers of a policy's passes of training begin: the states from which kernels draw an adapter's
 * dropout and NEFTune's noise. Both are set anew for each update. What a row draws from them, the kernels compute.
 */
import type { Tensor } from "../../engine/gpu/tensor.ts";
import type { EmbeddingNoise } from "../../engine/model/decoder.ts";
import type { Model } from "../../engine/model/model.ts";
import type { UpdateOptions } from "./update-options.ts";

export class PassDraws {
  /** The policy with the adapter that drops out, where it does; else as it was given. */
  readonly policy: Model;
  /** NEFTune's noise; undefined where none is asked for. */
  readonly noise: EmbeddingNoise | undefined;
  /** u32[2]: the seed and the update, from which dropout's random numbers follow beside the rows. */
  readonly #dropout: { readonly seed: number; readonly state: Tensor } | undefined;
  readonly #scale: UpdateOptions["noise"];

  constructor(policy: Model, { dropoutSeed, noise }: Pick<UpdateOptions, "dropoutSeed" | "noise">) {
    const { device } = policy;
    if (policy.adapter && dropoutSeed !== undefined) {
      const state = device.allocate("batch", "dropout state", [2], "u32");
      this.#dropout = { seed: dropoutSeed, state };
      this.policy = policy.withAdapter(policy.adapter.training(state));
    } else this.policy = policy;
    if (noise === undefined) return;
    this.#scale = noise;
    const state = device.allocate("batch", "noise state", [2], "u32");
    this.noise = { state, amplitude: device.allocate("batch", "noise amplitude", [1]) };
  }

  /**
   * Sets what the passes of a microbatch draw from.
   *
   * @param update counted from 0
   * @param longestTokens of the longest row of the whole microbatch: rows are packed without padding, and transformers'
   * length of a padded batch is that of its longest row
   */
  begin(update: number, longestTokens: number): void {
    const { device, config } = this.policy;
    if (this.#dropout) device.upload(this.#dropout.state, Uint32Array.of(this.#dropout.seed, update));
    if (this.noise === undefined || this.#scale === undefined) return;
    const { alpha, seed } = this.#scale;
    const elements = longestTokens * config.hiddenSize;
    device.upload(this.noise.state, Uint32Array.of(seed, update));
    device.upload(this.noise.amplitude, Float32Array.of(alpha / Math.sqrt(Math.max(1, elements))));
  }

  /** Gives the states' memory back. */
  free(): void {
    const { device } = this.policy;
    if (this.#dropout) device.free(this.#dropout.state);
    for (const tensor of this.noise ? [this.noise.state, this.noise.amplitude] : []) device.free(tensor);
  }
}
