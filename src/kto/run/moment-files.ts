/**
 * AdamW's moments in a checkpoint's file: as torch names them, for each tensor of the model, and those of eight bits for
 * each parameter. The file is the same whether one rank has all of them or each its share.
 */
import type { TensorToWrite } from "../../engine/files/safetensors.ts";
import type { AdamW } from "../../engine/gpu/optimizer.ts";
import { elementCount } from "../../engine/gpu/tensor.ts";
import { arenaTensors, deviceTensor, fillArena, requireTensor } from "../../engine/model/weights/arena-files.ts";
import type { WeightTensor } from "../../engine/model/weights/weight-tensor.ts";
import {
  firstMomentWord,
  type MomentKind,
  type MomentRange,
  momentWords,
  type SharedMoments,
} from "../../engine/ranks/shared-moments.ts";

/** Names of moments: torch's, before the name of a tensor; those of codes and scales, before that of a parameter. */
const FIRST_MOMENT = "exp_avg.";
const SECOND_MOMENT = "exp_avg_sq.";
const CODED = { first: "exp_avg_8bit.", second: "exp_avg_sq_8bit.", scales: "absmax_8bit." } as const;
const CODED_KINDS = ["first", "second", "scales"] as const;

/** A file's tensors, its path for messages, and the names in it. */
export interface MomentFile {
  readonly tensors: ReadonlyMap<string, WeightTensor>;
  readonly path: string;
  readonly nameOf: (part: string) => string;
}

/** The moments as tensors of a file. @param shared given where this rank has its share of them alone */
export function momentTensors(
  optimizer: AdamW,
  nameOf: (part: string) => string,
  shared?: SharedMoments,
): TensorToWrite[] {
  if (shared) return sharedTensors(optimizer, nameOf, shared);
  const { first, second, coded } = optimizer.moments;
  return [
    ...arenaTensors(first, (part) => FIRST_MOMENT + nameOf(part)),
    ...arenaTensors(second, (part) => SECOND_MOMENT + nameOf(part)),
    ...[...coded.values()].flatMap((moments) =>
      CODED_KINDS.map((kind) => deviceTensor(first, CODED[kind] + moments.name, moments[kind])),
    ),
  ];
}

/** Puts a file's moments into an optimizer that has all of them. */
export async function fillMoments(optimizer: AdamW, { tensors, path, nameOf }: MomentFile): Promise<void> {
  const { first, second, coded } = optimizer.moments;
  await fillArena(first, tensors, path, (part) => FIRST_MOMENT + nameOf(part));
  await fillArena(second, tensors, path, (part) => SECOND_MOMENT + nameOf(part));
  for (const moments of coded.values()) {
    for (const kind of CODED_KINDS) {
      const [key, { shape, dtype }] = [CODED[kind] + moments.name, moments[kind]];
      const stored = requireTensor(tensors, path, key, shape, dtype === "u32" ? "U32" : "F32");
      optimizer.device.upload(moments[kind], await stored.file.read(key));
    }
  }
}

function sharedTensors(optimizer: AdamW, nameOf: (part: string) => string, shared: SharedMoments): TensorToWrite[] {
  const { specs } = optimizer.gradients.layout;
  const [coded, plain] = [true, false].map((is) => specs.filter(({ name }) => optimizer.isCoded(name) === is));
  const ofKind = (kind: "first" | "second", prefix: string): TensorToWrite[] =>
    (plain ?? []).flatMap((spec) => {
      let end = 0;
      // Several tensors of a file may be one parameter, which is then gathered once.
      let held: Promise<Float32Array<ArrayBuffer>> | undefined;
      return spec.parts.map(({ name, shape }, index) => {
        const from = end;
        end += elementCount(shape);
        const to = end;
        const data = async () => {
          held ??= joined(shared.whole(kind, spec.name), elementCount(spec.shape));
          const values = (await held).subarray(from, to);
          if (index === spec.parts.length - 1) held = undefined;
          return values;
        };
        return { name: prefix + nameOf(name), shape, data };
      });
    });
  return [
    ...ofKind("first", FIRST_MOMENT),
    ...ofKind("second", SECOND_MOMENT),
    ...(coded ?? []).flatMap(({ name, shape }) =>
      CODED_KINDS.map((kind): TensorToWrite => {
        const words = momentWords({ kind, coded: true, part: { name, from: 0, size: elementCount(shape) } });
        const isScales = kind === "scales";
        return {
          name: CODED[kind] + name,
          shape: isScales ? [words / 2, 2] : [words],
          format: isScales ? "f32" : "u32",
          data: () => shared.whole(kind, name),
        };
      }),
    ),
  ];
}

async function joined(
  pieces: AsyncIterable<Float32Array<ArrayBuffer>>,
  size: number,
): Promise<Float32Array<ArrayBuffer>> {
  const all = new Float32Array(size);
  let at = 0;
  for await (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** Reads ranges of a file's moments, for `SharedMoments.fill`. */
export function momentReader(
  optimizer: AdamW,
  { tensors, path, nameOf }: MomentFile,
): (range: MomentRange) => Promise<Uint8Array> {
  return async (range) => {
    const { kind, coded, part } = range;
    const { spec } = optimizer.gradients.layout.place(part.name);
    if (coded) {
      const whole = momentWords({ ...range, part: { ...part, from: 0, size: elementCount(spec.shape) } });
      const isScales = kind === "scales";
      const key = CODED[kind] + part.name;
      const stored = requireTensor(tensors, path, key, isScales ? [whole / 2, 2] : [whole], isScales ? "F32" : "U32");
      return await stored.file.read(key, firstMomentWord(range), momentWords(range));
    }
    const bytes = new Uint8Array(4 * part.size);
    let start = 0;
    for (const { name, shape } of spec.parts) {
      const count = elementCount(shape);
      const [low, high] = [Math.max(part.from, start), Math.min(part.from + part.size, start + count)];
      if (low < high) {
        const key = PREFIXES[kind] + nameOf(name);
        const { file } = requireTensor(tensors, path, key, shape);
        bytes.set(await file.read(key, low - start, high - low), 4 * (low - part.from));
      }
      start += count;
    }
    return bytes;
  };
}

const PREFIXES: Readonly<Record<MomentKind, string>> = { first: FIRST_MOMENT, second: SECOND_MOMENT, scales: "" };
