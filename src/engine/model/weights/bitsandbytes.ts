/**
 * Tensors that bitsandbytes saved in 4 bits (NF4), as one tensor each: the weight's codes lie under its name, and
 * beside it its table, the scales of its blocks, which may be quantised a second time, and a state in JSON. Values are
 * those of bitsandbytes before it rounds them to the dtype of the state.
 */
import { counted, ModelFormatError, shown } from "../../../errors.ts";
import { QUANTIZED } from "../../../kernels/kernel.ts";
import { NF4_TABLE } from "../../../kernels/stored-nf4.ts";
import { isJsonObject } from "../../files/json-file.ts";
import { elementCount } from "../../gpu/tensor.ts";
import { unnested } from "../../quantized-formats.ts";
import type { WeightTensor } from "./weight-tensor.ts";

const STATE = /^(.+)\.quant_state\.bitsandbytes__(\w+)$/;
const BESIDE = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"] as const;
/** Scales in a block of a double quantisation. */
const NESTED_BLOCK = 256;

/**
 * The tensors of weight files, with every one that is quantised as a tensor of its own shape and the dtype "NF4".
 *
 * @throws ModelFormatError naming file and tensor for another type or other blocks, a tensor beside it that is missing
 * or of another size, a table with other numbers
 */
export async function withSavedCodes(tensors: ReadonlyMap<string, WeightTensor>): Promise<Map<string, WeightTensor>> {
  const whole = new Map(tensors);
  const withState = new Set([...tensors.keys()].map((name) => STATE.exec(name)?.[1]));
  for (const [name, entry] of tensors) {
    const weight = /^(.+)\.quant_map$/.exec(name)?.[1];
    if (weight === undefined || withState.has(weight)) continue;
    throw refused(entry, name, `a table of quantised codes, and "${weight}.quant_state.bitsandbytes__nf4" is missing`);
  }
  for (const [name, entry] of tensors) {
    const [, weight, type] = STATE.exec(name) ?? [];
    if (weight === undefined) continue;
    if (type !== "nf4") throw refused(entry, name, `quantised as ${type}; of 4-bit types only nf4 can be read`);
    const found = tensors.get(weight);
    if (found === undefined) throw refused(entry, name, `the state of "${weight}", which the files do not hold`);
    whole.set(weight, await savedTensor(tensors, weight, found, entry));
    for (const beside of [name, ...BESIDE.map((part) => `${weight}.${part}`)]) whole.delete(beside);
  }
  return whole;
}

async function savedTensor(
  tensors: ReadonlyMap<string, WeightTensor>,
  name: string,
  weight: WeightTensor,
  stateEntry: WeightTensor,
): Promise<WeightTensor> {
  const state = await readState(stateEntry, `${name}.quant_state.bitsandbytes__nf4`);
  const { block } = QUANTIZED.nf4;
  if (state.blockSize !== block) {
    throw refused(weight, name, `quantised in blocks of ${state.blockSize}; only blocks of ${block} can be read`);
  }
  const count = elementCount(state.shape);
  if (weight.byteLength !== Math.ceil(count / 2)) {
    throw refused(
      weight,
      name,
      `${counted(weight.byteLength, "byte")} of codes, not those of [${state.shape.join(", ")}]`,
    );
  }
  const blocks = Math.ceil(count / block);
  const beside = (part: (typeof BESIDE)[number], dtype: string, size: number) => {
    const found = tensors.get(`${name}.${part}`);
    if (found?.dtype === dtype && elementCount(found.shape) === size) return { tensor: found, name: `${name}.${part}` };
    const is = found === undefined ? "missing" : `${found.dtype} [${found.shape.join(", ")}]`;
    throw refused(weight, name, `quantised, and its "${part}" is ${is}, not ${dtype} [${size}]`);
  };
  const f32 = ({ tensor, name: of }: ReturnType<typeof beside>) => tensor.file.readF32(of);
  const table = await f32(beside("quant_map", "F32", NF4_TABLE.length));
  if (!table.every((value, i) => value === NF4_TABLE[i])) {
    throw refused(weight, name, `quantised by a table of numbers of its own ("quant_map"), not nf4's`);
  }
  return {
    file: weight.file,
    dtype: "NF4",
    shape: state.shape,
    byteOffset: weight.byteOffset,
    byteLength: weight.byteLength,
    saved: { codes: (first, size) => readBytes(weight, name, first, size), scales: scalesReader() },
  };

  /** @throws ModelFormatError for a scale below 0: it is the largest magnitude of its block */
  async function magnitudes(found: ReturnType<typeof beside>): Promise<Float32Array<ArrayBuffer>> {
    const values = await f32(found);
    const at = values.findIndex((value) => value < 0);
    if (at < 0) return values;
    throw refused(found.tensor, found.name, `a list of magnitudes, and its number ${at} is ${values[at]}`);
  }

  function scalesReader(): () => Promise<Float32Array<ArrayBuffer>> {
    const { offset } = state;
    if (offset === undefined) {
      const scales = beside("absmax", "F32", blocks);
      return () => magnitudes(scales);
    }
    const codes = beside("absmax", "U8", blocks);
    const nestedScales = beside("nested_absmax", "F32", Math.ceil(blocks / NESTED_BLOCK));
    const nestedTable = beside("nested_quant_map", "F32", 256);
    return async () =>
      unnested({
        codes: await codes.tensor.file.read(codes.name),
        scales: await magnitudes(nestedScales),
        table: await f32(nestedTable),
        offset,
        block: NESTED_BLOCK,
      });
  }
}

/** Codes are packed as numbers of some type (bnb_4bit_quant_storage), which is only a view of the bytes. */
async function readBytes(
  { file, byteLength, shape }: WeightTensor,
  name: string,
  first: number,
  count: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const perElement = byteLength / elementCount(shape);
  const [from, to] = [Math.floor(first / perElement), Math.ceil((first + count) / perElement)];
  const bytes = await file.read(name, from, to - from);
  return bytes.subarray(first - from * perElement, first - from * perElement + count);
}

interface State {
  readonly shape: readonly number[];
  readonly blockSize: unknown;
  /** Added to scales that are quantised themselves; undefined where they are not. */
  readonly offset: number | undefined;
}

async function readState(entry: WeightTensor, name: string): Promise<State> {
  const json = jsonOf(new TextDecoder().decode(await entry.file.read(name)));
  if (json === undefined) throw refused(entry, name, "no JSON object");
  const { shape, blocksize: blockSize, nested_offset: offset, nested_blocksize: nestedBlock } = json;
  if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size) && size > 0)) {
    throw refused(entry, name, `a state with the shape ${shown(shape)}`);
  }
  if (offset === undefined || offset === null) return { shape, blockSize, offset: undefined };
  if (typeof offset !== "number" || !Number.isFinite(offset) || nestedBlock !== NESTED_BLOCK) {
    throw refused(
      entry,
      name,
      `a state with nested_offset ${shown(offset)} and nested_blocksize ${shown(nestedBlock)}`,
    );
  }
  return { shape, blockSize, offset: Math.fround(offset) };
}

function jsonOf(text: string): Record<string, unknown> | undefined {
  try {
    const json: unknown = JSON.parse(text);
    return isJsonObject(json) ? json : undefined;
  } catch {
    return undefined;
  }
}

function refused({ file }: { readonly file: { readonly path: string } }, name: string, what: string): ModelFormatError {
  return new ModelFormatError(`${file.path}: tensor "${name}" is ${what}.`);
}
