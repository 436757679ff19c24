/** What translated WGSL is made of: expressions, functions, the places where invocations wait, literals. */
import { type Scalar, scalarType, type Type } from "./types.ts";

/** JavaScript of an expression; of what can be assigned to, that of the assignment too. */
export interface Code {
  readonly js: string;
  readonly type: Type;
  readonly assign?: (value: string) => string;
  /** Of a name whose value does not change: the name of what all lanes have, once they have handed it to each other. */
  readonly handed?: string;
}

/**
 * In place of a site: a call, whose value the caller waits for. The machine runs it, since a generator in a generator
 * is slow.
 */
export const CALLS = -1;

/** A function of the text; its JavaScript once it has been translated. */
export interface WgslFunction {
  readonly name: string;
  readonly parameters: readonly { readonly name: string; readonly type: Type; readonly builtin?: string }[];
  readonly result: Type;
  readonly bodyAt: number;
  /** Whether it waits for other invocations: then it is a generator. */
  waits?: boolean;
}

/** Where invocations wait for each other. */
export interface Site {
  readonly name: string;
  /** JavaScript of a function of two values, for what folds those of all lanes. */
  readonly fold?: string;
}

export function literal(word: string): Code {
  const isHex = word.startsWith("0x");
  const suffix = (isHex ? /[ui]$/ : /[fhui]$/).exec(word)?.[0];
  const number = Number(suffix === undefined ? word : word.slice(0, -1));
  const named: Readonly<Record<string, Scalar>> = { f: "f32", h: "f16", u: "u32", i: "i32" };
  const abstract: Scalar = !isHex && /[.eE]/.test(word) ? "float" : "int";
  const scalar = named[suffix ?? ""] ?? abstract;
  return { js: String(scalar === "f32" ? Math.fround(number) : number), type: scalarType(scalar) };
}
