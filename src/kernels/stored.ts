/**
 * Reads stored weights in WGSL: f32, or f16 and bf16 packed in pairs. The matmul, the head and the embedding share
 * these snippets, so that a format is added here and nowhere else. bf16 is the upper half of an f32, so a shift unpacks
 * it exactly; f16 goes through `unpack2x16float`, which is core WGSL: neither needs the feature `shader-f16`.
 * Activations are also written, and are WGSL's own f16, which needs it.
 */
import type { ActivationFormat, StoredFormat } from "./kernel.ts";

/** Bytes of one number. */
export function storedBytes(format: StoredFormat): number {
  return format === "f32" ? 4 : 2;
}

/** The binding of a stored matrix: its format and shape, seen as vectors of four where `vectors`. */
export function storedBinding(format: StoredFormat, shape: string, vectors: boolean): string {
  const view = format === "f32" ? "vec4f" : "vec2u";
  return `${format}[${shape}]${vectors ? ` as ${view}` : ""}`;
}

/** The binding of a matrix of a 16-bit format that is read eight numbers at a time, each by `unpackEight`. */
export const storedEights = (format: StoredFormat, shape: string): string => `${format}[${shape}] as vec4u`;

/** WGSL: eight numbers, and how they are unpacked by `storedFunctions`. */
export const EIGHTS = /* wgsl */ `
struct Eight { low: vec4f, high: vec4f }
fn unpackEight(words: vec4u) -> Eight { return Eight(unpackFour(words.xy), unpackFour(words.zw)); }
`;

/** WGSL functions that `storedVector` and `storedElement` call, for a format. */
export function storedFunctions(format: StoredFormat): string {
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

/** A WGSL expression for elements 4 `index` to 4 `index` + 3 of `name`, a vec4f; the binding is seen as vectors. */
export function storedVector(format: StoredFormat, name: string, index: string): string {
  return format === "f32" ? `${name}[${index}]` : `unpackFour(${name}[${index}])`;
}

/** A WGSL expression for element `index` of `name`, an f32; the binding is seen element by element (word by word). */
export function storedElement(format: StoredFormat, name: string, index: string): string {
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
