/**
 * Reads stored weights in WGSL: f32, f16 and bf16 packed in pairs, or quantised. The matmul, the head and the embedding
 * share these snippets, so that a format is added here and nowhere else. bf16 is the upper half of an f32, so a shift
 * unpacks it exactly; f16 goes through `unpack2x16float`, which is core WGSL: neither needs the feature `shader-f16`.
 * A quantised number is a code times its block's scale, from the binding of scales that a quantised one brings along.
 * Activations are also written, and are WGSL's own f16, which needs it.
 */
import {
  type ActivationFormat,
  isQuantized,
  QUANTIZED,
  type QuantizedFormat,
  scalesName,
  type WeightFormat,
} from "./kernel.ts";
import { nf4Declarations, type TableLookup } from "./stored-nf4.ts";

/** Bytes of one number, its share of a scale included. */
export function storedBytes(format: WeightFormat): number {
  if (!isQuantized(format)) return format === "f32" ? 4 : 2;
  const { bits, block, scales } = QUANTIZED[format];
  return bits / 8 + storedBytes(scales) / block;
}

/** The binding of a stored matrix: its format and shape, seen as vectors of four where `vectors`. */
export function storedBinding(format: WeightFormat, shape: string, vectors: boolean): string {
  if (isQuantized(format)) return `${format}[${shape}]`;
  const view = format === "f32" ? "vec4f" : "vec2u";
  return `${format}[${shape}]${vectors ? ` as ${view}` : ""}`;
}

/** The binding of a matrix of a 16-bit format that is read eight numbers at a time, each by `unpackEight`. */
export const storedEights = (format: WeightFormat, shape: string): string => `${format}[${shape}] as vec4u`;

/** WGSL: eight numbers, and how they are unpacked by `storedFunctions`. */
export const EIGHTS = /* wgsl */ `
struct Eight { low: vec4f, high: vec4f }
fn unpackEight(words: vec4u) -> Eight { return Eight(unpackFour(words.xy), unpackFour(words.zw)); }
`;

/**
 * WGSL functions that `storedVector` and `storedElement` call, for a binding `name` in a format.
 *
 * @param lookup how the kernel looks codes up, where the format has a table
 */
export function storedFunctions(format: WeightFormat, name: string, lookup: TableLookup = "constant"): string {
  if (isQuantized(format)) return quantizedFunctions(format, name, lookup);
  if (format === "f32") return "";
  const pair =
    format === "bf16"
      ? "return vec2f(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));"
      : "return unpack2x16float(word);";
  return /* wgsl */ `
fn unpackPair(word: u32) -> vec2f { ${pair} }
fn unpackFour(words: vec2u) -> vec4f { return vec4f(unpackPair(words.x), unpackPair(words.y)); }
fn unpackOne(word: u32, i: u32) -> f32 {
  let pair = unpackPair(word);
  return select(pair.x, pair.y, (i & 1u) != 0u);
}
`;
}

/** Fours and numbers of a quantised matrix: four numbers never lie in two blocks. */
function quantizedFunctions(format: QuantizedFormat, name: string, lookup: TableLookup): string {
  const scales = scalesName(name);
  if (format === "nf4") {
    return /* wgsl */ `${nf4Declarations(lookup)}
fn ${name}Four(four: u32) -> vec4f {
  let word = ${name}[four / 2u] >> (16u * (four & 1u));
  return nf4Values((vec4u(word) >> vec4u(4u, 0u, 12u, 8u)) & vec4u(15u)) * ${scales}[four / 16u];
}
fn ${name}One(i: u32) -> f32 {
  let code = (${name}[i / 8u] >> (4u * ((i & 7u) ^ 1u))) & 15u;
  return nf4Value(code) * ${scales}[i / 64u];
}
`;
  }
  return /* wgsl */ `
fn ${name}Scale(block: u32) -> f32 {
  let pair = unpack2x16float(${scales}[block / 2u]);
  return select(pair.x, pair.y, (block & 1u) != 0u);
}
fn ${name}Four(four: u32) -> vec4f {
  let codes = (vec4i(i32(${name}[four])) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u);
  return vec4f(codes) * ${name}Scale(four / 8u);
}
fn ${name}One(i: u32) -> f32 {
  let code = (i32(${name}[i / 4u]) << (24u - 8u * (i & 3u))) >> 24u;
  return f32(code) * ${name}Scale(i / 32u);
}
`;
}

/** A WGSL expression for elements 4 `index` to 4 `index` + 3 of `name`, a vec4f; the binding is seen as vectors. */
export function storedVector(format: WeightFormat, name: string, index: string): string {
  if (isQuantized(format)) return `${name}Four(${index})`;
  return format === "f32" ? `${name}[${index}]` : `unpackFour(${name}[${index}])`;
}

/** A WGSL expression for element `index` of `name`, an f32; the binding is seen element by element (word by word). */
export function storedElement(format: WeightFormat, name: string, index: string): string {
  if (isQuantized(format)) return `${name}One(${index})`;
  return format === "f32" ? `${name}[${index}]` : `unpackOne(${name}[(${index}) / 2u], ${index})`;
}

/** The binding of a matrix of activations: its format and shape, seen as vectors of four where `vectors`. */
export function activationBinding(format: ActivationFormat, shape: string, vectors: boolean): string {
  if (format === "f32") return storedBinding(format, shape, vectors);
  return `f16[${shape}] as ${vectors ? "vec4h" : "f16"}`;
}

/** A WGSL expression for what `element` of such a binding holds: an f32, or a vec4f where `vectors`. */
export function loadedActivation(format: ActivationFormat, element: string, vectors: boolean): string {
  if (format === "f32") return element;
  return `${vectors ? "vec4f" : "f32"}(${element})`;
}

/** A WGSL expression for what is assigned to an element of such a binding for `value`, an f32 or a vec4f. */
export function storedActivation(format: ActivationFormat, value: string, vectors: boolean): string {
  if (format === "f32") return value;
  return `${vectors ? "vec4h" : "f16"}(${value})`;
}
