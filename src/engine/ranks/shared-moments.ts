/**
 * The optimizer's moments where each rank keeps its share of them: put together for a file, and divided when they are
 * read from one, so that no file depends on the number of ranks. Parameter by parameter; no rank ever has all of them.
 */
import { codeBytes, type Moments, scaleBytes } from "../gpu/moments.ts";
import { type AdamW, partName } from "../gpu/optimizer.ts";
import type { ParameterSlice } from "../gpu/parts.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import type { Communicator } from "./communicator.ts";
import type { OnRequest } from "./on-request.ts";
import { type Piece, partsOfRank } from "./pieces.ts";
import { bytesFromFirst } from "./sums.ts";

/** f32 moments; codes of eight bits, and the scales of both moments. */
export type MomentKind = "first" | "second" | "scales";

/** What there is of a parameter's moments. */
export interface MomentRange {
  readonly kind: MomentKind;
  /** Whether they are codes. */
  readonly coded: boolean;
  readonly part: ParameterSlice;
}

/** 4-byte words of a range. */
export function momentWords({ kind, coded, part: { size } }: MomentRange): number {
  if (kind === "scales") return scaleBytes(size) / 4;
  return coded ? codeBytes(size) / 4 : size;
}

/** 4-byte words of the moments in front of a range, in its parameter: where the range begins. */
export function firstMomentWord(range: MomentRange): number {
  return momentWords({ ...range, part: { ...range.part, size: range.part.from } });
}

export class SharedMoments {
  readonly #ranks: Communicator;
  readonly #optimizer: AdamW;
  readonly #pieces: readonly Piece[];
  /** By the parameter's name and kind: the parts that it was divided into, in order, with the number of their source. */
  readonly #sources = new Map<string, { readonly from: number; readonly source: number }[]>();
  readonly #requests: OnRequest;

  constructor(ranks: Communicator, optimizer: AdamW, pieces: readonly Piece[], requests: OnRequest) {
    this.#ranks = ranks;
    this.#optimizer = optimizer;
    this.#pieces = pieces;
    this.#requests = requests;
    for (const { range, own } of this.#ranges()) {
      const key = `${range.kind} ${range.part.name}`;
      const found = this.#sources.get(key) ?? [];
      this.#sources.set(key, found);
      const read = async () => {
        const tensor = own && this.#tensor({ ...range, part: own });
        return new Uint8Array(tensor ? await optimizer.device.downloadBytes(tensor) : new ArrayBuffer(0));
      };
      found.push({ from: range.part.from, source: requests.add(read) });
      found.sort((a, b) => a.from - b.from);
    }
  }

  /** Every range of every piece, with this rank's own part of it, if it has one. */
  *#ranges(): Generator<{ readonly range: MomentRange; readonly own: ParameterSlice | undefined }> {
    for (const piece of this.#pieces) {
      const mine = partsOfRank(piece, this.#ranks.rank);
      for (const part of piece.parts) {
        const own = mine.find(({ name, from }) => {
          return name === part.name && from >= part.from && from < part.from + part.size;
        });
        const coded = this.#optimizer.isCoded(part.name);
        for (const kind of coded ? (["first", "second", "scales"] as const) : (["first", "second"] as const)) {
          yield { range: { kind, coded, part }, own };
        }
      }
    }
  }

  /** The memory of a part of this rank's. */
  #tensor(range: MomentRange): Tensor {
    const moments: Moments = this.#optimizer.moments;
    const key = partName(range.part);
    const shape = [momentWords(range)];
    const coded = moments.coded.get(key);
    if (coded) return { ...coded[range.kind], dtype: "u32", shape };
    return reshape((range.kind === "first" ? moments.first : moments.second).window(key), shape);
  }

  /** The words of all of a parameter, in pieces. Rank 0 calls it within the work of `OnRequest.during`. */
  async *whole(kind: MomentKind, name: string): AsyncGenerator<Float32Array<ArrayBuffer>> {
    for (const { source } of this.#sources.get(`${kind} ${name}`) ?? []) {
      // Slices follow one another in the order of ranks.
      for (const bytes of await this.#requests.ask(source)) {
        if (bytes.byteLength > 0) yield new Float32Array(bytes.slice().buffer);
      }
    }
  }

  /**
   * Puts moments of a file into the shares of all ranks. Every rank calls it.
   *
   * @param read the words of a range, on rank 0 alone
   */
  async fill(read: ((range: MomentRange) => Promise<Uint8Array>) | undefined): Promise<void> {
    const { device } = this.#optimizer;
    for (const { range, own } of this.#ranges()) {
      const bytes = await bytesFromFirst(this.#ranks, await read?.(range));
      if (own === undefined) continue;
      const mine = { ...range, part: own };
      const first = 4 * (firstMomentWord(mine) - firstMomentWord(range));
      device.upload(this.#tensor(mine), bytes.slice(first, first + 4 * momentWords(mine)));
    }
    await device.idle();
  }
}
