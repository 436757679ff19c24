/**
 * A run whose ranks update by themselves and meet every so many updates (DiLoCo, Douillard et al. 2023): when an outer
 * step is due, and what only a rank itself has, so that checkpoints can keep it. Between two outer steps ranks have
 * models of their own; moments are each rank's own always.
 */
import type { Arena } from "../../engine/gpu/arena.ts";
import { byteLength, type Tensor } from "../../engine/gpu/tensor.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { type OuterOptions, OuterStep } from "../../engine/ranks/outer-step.ts";
import { piecesOfStages } from "../../engine/ranks/pieces.ts";
import { sliceSize } from "../../engine/ranks/sums.ts";
import { NumericError } from "../../errors.ts";
import type { Update } from "../method/update.ts";
import { type RankState, RankStates } from "./rank-states.ts";

export interface LocalUpdatesOptions extends OuterOptions {
  /** Updates of each rank between two outer steps. */
  readonly every: number;
}

/** 4-byte words of one state in a file at most. */
const MOST_WORDS = 2 ** 22;

export class LocalUpdates {
  /** Updates since the last outer step; with 0 all ranks have the same weights. */
  since = 0;
  readonly states: RankStates;
  readonly #every: number;
  readonly #outer: OuterStep;

  constructor(ranks: Communicator, { optimizer, policy }: Update, { every, ...options }: LocalUpdatesOptions) {
    this.#every = every;
    const { layout } = optimizer.gradients;
    const names = layout.specs.map(({ name }) => name);
    const pieces = piecesOfStages(layout, [names], ranks.size).flat();
    this.#outer = new OuterStep(ranks, policy.trained, pieces, options);
    const { first, second, coded } = optimizer.moments;
    const own = (name: string, tensor: Tensor) => tensorStates(policy.device, name, tensor);
    const arena = (prefix: string, of: Arena, all: readonly string[]) =>
      all.flatMap((name) => own(prefix + name, of.window(name)));
    const small = first.layout.specs.map(({ name }) => name);
    this.states = new RankStates(ranks, [
      ...own("optimizer_state", optimizer.state),
      ...arena("exp_avg.", first, small),
      ...arena("exp_avg_sq.", second, small),
      ...[...coded.values()].flatMap(({ name, first, second, scales }) => [
        ...own(`exp_avg_8bit.${name}`, first),
        ...own(`exp_avg_sq_8bit.${name}`, second),
        ...own(`absmax_8bit.${name}`, scales),
      ]),
      ...arena("weights.", policy.trained, names).map((state) => ({ ...state, isNeeded: () => this.since > 0 })),
      ...this.#outer.slices.flatMap(({ weights, momentum }, piece) => {
        const { cuts = [] } = pieces[piece] ?? {};
        const state = (name: string, numbers: Float32Array<ArrayBuffer>): RankState => ({
          name: `${name}.${piece}`,
          isOfAll: true,
          words: (rank) => sliceSize(cuts, rank),
          read: async () => new Uint8Array(numbers.buffer),
          write: (bytes) => numbers.set(new Float32Array(bytes.slice().buffer)),
        });
        return [state("outer_weights", weights), state("outer_momentum", momentum)];
      }),
    ]);
  }

  /** Takes the weights as they are, the same on every rank, as those that all start from. */
  async begin(): Promise<void> {
    await this.#outer.begin();
  }

  /** The outer step, whether it is due or not. @returns the norm of the mean change */
  async step(): Promise<number> {
    this.since = 0;
    return await this.#outer.step();
  }

  /**
   * The outer step where it is due after an update: every so many, and after the last one.
   *
   * @returns the norm of the mean change, where there was a step
   * @throws NumericError where that is not finite
   */
  async after(update: number, isLast: boolean): Promise<number | undefined> {
    this.since++;
    if (update % this.#every !== 0 && !isLast) return undefined;
    const norm = await this.step();
    if (Number.isFinite(norm)) return norm;
    throw new NumericError(
      `The weights of a rank are not finite after update ${update}, so their mean cannot be taken: lower learning_rate, or go on from the last checkpoint with other rows.`,
    );
  }

  /** Gives memory back that numbers passed through. */
  free(): void {
    this.#outer.free();
  }
}

/** A tensor of the device as states of at most `MOST_WORDS`. */
function tensorStates(device: Update["device"], name: string, tensor: Tensor): RankState[] {
  const words = byteLength(tensor) / 4;
  return Array.from({ length: Math.ceil(words / MOST_WORDS) }, (_, i): RankState => {
    const size = Math.min(MOST_WORDS, words - i * MOST_WORDS);
    const offset = tensor.offset + 4 * i * MOST_WORDS;
    const part: Tensor = { buffer: tensor.buffer, dtype: "u32", offset, shape: [size] };
    return {
      name: i === 0 ? name : `${name}@${i * MOST_WORDS}`,
      isOfAll: false,
      words: () => size,
      read: async () => new Uint8Array(await device.downloadBytes(part)),
      write: (bytes) => device.upload(part, bytes.slice()),
    };
  });
}
