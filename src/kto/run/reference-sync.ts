/**
 * A reference that follows the policy (TRL's sync_ref_model): every so many updates its weights become a mixture of the
 * policy's and its own. TR-DPO, Gorbatovski et al. 2024. Checkpoints hold it (`checkpoints.ts`).
 */
import type { Arena } from "../../engine/gpu/arena.ts";
import { Program } from "../../engine/gpu/program.ts";
import { Model } from "../../engine/model/model.ts";
import { ConfigError } from "../../errors.ts";
import { mix } from "../../kernels/mix.ts";
import type { UpdateReference } from "../method/update-options.ts";

/** When and how far the reference moves. */
export interface SyncOptions {
  /** The policy's share of the mixture, above 0 and at most 1. */
  readonly share: number;
  /** Updates between two of them. */
  readonly every: number;
}

export class ReferenceSync {
  /** What moves. */
  readonly weights: Arena;
  readonly #every: number;
  readonly #program: Program;

  /** @throws ConfigError for a reference that is no copy of the policy in f32 */
  constructor(policy: Model, reference: UpdateReference, { share, every }: SyncOptions) {
    if (!(reference instanceof Model) || policy.adapter !== undefined || reference.adapter !== undefined) {
      throw new ConfigError(
        'option "sync_ref_model" is true, but an adapter is trained, or the reference has no weights of its own to be moved: leave it out.',
      );
    }
    const [from, to] = [policy.weights, reference.weights];
    const names = (arena: Arena) => arena.layout.specs.map(({ name, shape }) => `${name} ${shape.join("x")}`).join();
    if (to.layout.format !== "f32" || names(from) !== names(to)) {
      throw new ConfigError(
        `option "sync_ref_model" is true, but the reference ${reference.folder} is not a copy of the model in f32, and cannot be mixed with it: leave out ref_model_name_or_path.`,
      );
    }
    this.weights = to;
    this.#every = every;
    this.#program = new Program(policy.device, "reference sync");
    for (const { of } of to.windows()) {
      this.#program.dispatch(mix, { policy: of(from), reference: of(to), share, rest: 1 - share });
    }
  }

  /** Moves the reference where it is due after this many updates. */
  async after(updates: number): Promise<void> {
    if (updates % this.#every !== 0) return;
    await this.#program.prepare();
    this.#program.run();
  }
}
