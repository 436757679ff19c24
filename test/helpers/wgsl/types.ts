/**
 * The types of WGSL that kernels use, and what their operators and built-in functions are in JavaScript, number by
 * number.
 */

/** `float` and `int` are the abstract types of literals, which take the type of what they meet. */
export type Scalar = "f32" | "f16" | "u32" | "i32" | "bool" | "float" | "int";

export type Type =
  | { readonly kind: "scalar"; readonly scalar: Scalar }
  | { readonly kind: "vector"; readonly scalar: Scalar; readonly size: number }
  /** A count of 0: as many as the binding holds. */
  | { readonly kind: "array"; readonly element: Type; readonly count: number }
  | { readonly kind: "struct"; readonly name: string; readonly members: ReadonlyMap<string, Type> }
  | { readonly kind: "atomic" }
  | { readonly kind: "nothing" };

export const scalarType = (scalar: Scalar): Type => ({ kind: "scalar", scalar });
export const NOTHING: Type = { kind: "nothing" };
export const U32 = scalarType("u32");
export const BOOL = scalarType("bool");

/** The same shape with other numbers. */
export const withScalar = (type: Type, scalar: Scalar): Type =>
  type.kind === "vector" ? { ...type, scalar } : scalarType(scalar);

export const sizeOf = (type: Type): number => (type.kind === "vector" ? type.size : 1);

/** The numbers of a scalar or vector; of other types none. */
export const scalarOf = (type: Type): Scalar | undefined =>
  type.kind === "scalar" || type.kind === "vector" ? type.scalar : undefined;

/** The type that both operands take: the one that is no literal's. */
export function meeting(a: Scalar, b: Scalar): Scalar {
  if (a === "int") return b;
  if (a === "float") return b === "int" ? a : b;
  return a;
}

const SUFFIXES: Readonly<Record<string, Scalar>> = { f: "f32", h: "f16", u: "u32", i: "i32" };
const SCALARS: readonly string[] = ["f32", "f16", "u32", "i32", "bool"];

/** A type by its short name: `u32`, `vec4f`. */
export function namedType(name: string): Type | undefined {
  if (SCALARS.includes(name)) return scalarType(name as Scalar);
  const [, size, suffix] = /^vec([234])([fhui])$/.exec(name) ?? [];
  const scalar = SUFFIXES[suffix ?? ""];
  return scalar && { kind: "vector", scalar, size: Number(size) };
}

/** JavaScript that rounds a number to a type. */
export function rounded(scalar: Scalar, value: string): string {
  switch (scalar) {
    case "f32":
      return `fround(${value})`;
    case "f16":
      return `half(${value})`;
    case "u32":
      return `((${value}) >>> 0)`;
    case "i32":
      return `((${value}) | 0)`;
    default:
      return `(${value})`;
  }
}

/** A value of one type as one of another, as its constructor converts it. */
export function converted(value: string, from: Scalar, to: Scalar): string {
  if (from === to) return value;
  if (to === "bool") return `(${value} !== 0)`;
  if (from === "bool") return `(${value} ? 1 : 0)`;
  const isFloat = from === "f32" || from === "f16" || from === "float";
  if (to === "u32" && isFloat) return `toUnsigned(${value})`;
  if (to === "i32" && isFloat) return `toSigned(${value})`;
  return rounded(to, value);
}

const COMPARISONS: Readonly<Record<string, string>> = { "==": "===", "!=": "!==" };
export const isComparison = (operator: string) => ["==", "!=", "<", ">", "<=", ">="].includes(operator);

/** A binary operator on two numbers of a type. */
export function binary(operator: string, scalar: Scalar, a: string, b: string): string {
  if (isComparison(operator)) return `(${a} ${COMPARISONS[operator] ?? operator} ${b})`;
  if (scalar === "bool") return operator.length === 2 ? `(${a} ${operator} ${b})` : `!!(${a} ${operator} ${b})`;
  const isWhole = scalar === "u32" || scalar === "i32" || scalar === "int";
  if (isWhole && (operator === "/" || operator === "%")) {
    return rounded(scalar, `${operator === "/" ? "quotient" : "remainder"}(${a}, ${b})`);
  }
  if (isWhole && operator === "*") return rounded(scalar, `Math.imul(${a}, ${b})`);
  if (operator === ">>") return scalar === "u32" ? `(${a} >>> ${b})` : `(${a} >> ${b})`;
  return rounded(scalar, `${a} ${operator} ${b}`);
}

type Elementwise = (scalar: Scalar, ...values: string[]) => string;
const floats =
  (name: string): Elementwise =>
  (scalar, x = "") =>
    rounded(scalar, `${name}(${x})`);

/** Built-in functions that take each component of vectors for itself, all operands of one type. */
export const ELEMENTWISE: Readonly<Record<string, Elementwise>> = {
  // The sum in float64 and its rounding to f32 are two roundings, where a fused multiply-add has one.
  fma: (scalar, a = "", b = "", c = "") => rounded(scalar, `${a} * ${b} + ${c}`),
  min: (_, a = "", b = "") => `Math.min(${a}, ${b})`,
  max: (_, a = "", b = "") => `Math.max(${a}, ${b})`,
  clamp: (_, x = "", low = "", high = "") => `Math.min(Math.max(${x}, ${low}), ${high})`,
  abs: (_, x = "") => `Math.abs(${x})`,
  sign: (_, x = "") => `Math.sign(${x})`,
  floor: (_, x = "") => `Math.floor(${x})`,
  ceil: (_, x = "") => `Math.ceil(${x})`,
  exp: floats("Math.exp"),
  exp2: (scalar, x = "") => rounded(scalar, `2 ** ${x}`),
  log: floats("Math.log"),
  log2: floats("Math.log2"),
  sqrt: floats("Math.sqrt"),
  inverseSqrt: (scalar, x = "") => rounded(scalar, `1 / Math.sqrt(${x})`),
  tanh: floats("Math.tanh"),
  sin: floats("Math.sin"),
  cos: floats("Math.cos"),
  pow: (scalar, x = "", y = "") => rounded(scalar, `${x} ** ${y}`),
};
