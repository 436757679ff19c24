/**
 * Writes f32 arenas (trained weights, moments) into safetensors files and reads them back, bit by bit and in pieces.
 * Does not check what the numbers mean or whether they are finite.
 */
import { ModelFormatError } from "../../../errors.ts";
import type { TensorToWrite } from "../../files/safetensors.ts";
import type { Arena, ParameterPart, Place } from "../../gpu/arena.ts";
import { byteLength, elementCount, type Tensor } from "../../gpu/tensor.ts";
import type { WeightTensor } from "./weight-tensor.ts";
import { arenaPieces } from "./weight-transfer.ts";

/** Elements on the host at once while a file is read. */
const PIECE = 2 ** 22;

/** An arena's tensors as they are to be written. */
export function arenaTensors(arena: Arena, nameOf: (part: string) => string): TensorToWrite[] {
  return [...arena.layout.parts()].map((part) => ({
    name: nameOf(part.name),
    shape: part.shape,
    data: () => arenaPieces(arena, part),
  }));
}

/** A tensor outside of an arena, as it is to be written. */
export function deviceTensor({ device }: Arena, name: string, tensor: Tensor): TensorToWrite {
  const { shape, dtype } = tensor;
  const format = dtype === "u32" ? "u32" : "f32";
  return { name, shape, format, data: async () => new Float32Array(await device.downloadBytes(tensor)) };
}

/**
 * Throws ModelFormatError naming file and tensor if a file's tensor is not there, or is not of this type and shape.
 *
 * @param path the file to name where a tensor is missing
 */
export function requireTensor(
  tensors: ReadonlyMap<string, WeightTensor>,
  path: string,
  name: string,
  shape: readonly number[],
  dtype: "F32" | "U32" = "F32",
): WeightTensor {
  const found = tensors.get(name);
  if (found === undefined) throw new ModelFormatError(`${path}: tensor "${name}" is missing.`);
  if (found.dtype === dtype && found.shape.join() === shape.join()) return found;
  throw new ModelFormatError(
    `${found.file.path}: tensor "${name}" is ${found.dtype} [${found.shape.join(", ")}], not ${dtype} [${shape.join(", ")}].`,
  );
}

/**
 * Puts a file's numbers into an arena. Throws ModelFormatError, see `requireTensor`.
 *
 * @param parts those that the file holds; default all
 */
export async function fillArena(
  arena: Arena,
  tensors: ReadonlyMap<string, WeightTensor>,
  path: string,
  nameOf: (part: string) => string,
  parts: Iterable<ParameterPart & Place> = arena.layout.parts(),
): Promise<void> {
  const { device } = arena;
  for (const { name, shape, segment, offset } of parts) {
    const { file } = requireTensor(tensors, path, nameOf(name), shape);
    const count = elementCount(shape);
    for (let first = 0; first < count; first += PIECE) {
      const size = Math.min(PIECE, count - first);
      const window = arena.at({ segment, offset: offset + first }, [size]);
      device.upload(window, await file.read(nameOf(name), first, size));
      // The queue keeps a copy of what it has not written yet.
      if (byteLength(window) === 4 * PIECE) await device.idle();
    }
  }
  await device.idle();
}
