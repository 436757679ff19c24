/**
 * Reads a safetensors file of F32 tensors into float64, for the tests of the float64 model. Not the engine's reader: it
 * checks nothing that a fixture of ours cannot get wrong.
 */
import { readFileSync } from "node:fs";

export interface Float64Tensor {
  shape: number[];
  data: Float64Array;
}

/** Tensors by name; throws for any dtype but F32. */
export function readFloat64Safetensors(path: string): Map<string, Float64Tensor> {
  const bytes = readFileSync(path);
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, Float64Tensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (dtype !== "F32") throw new Error(`${path}: "${name}" is ${dtype}, not F32.`);
    const [start, end] = data_offsets;
    const data = new Float64Array((end - start) / 4);
    for (let i = 0; i < data.length; i++) data[i] = bytes.readFloatLE(8 + headerLength + start + 4 * i);
    tensors.set(name, { shape, data });
  }
  return tensors;
}
