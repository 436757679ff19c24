/** What translated WGSL calls when it runs: memory whose every index is checked, and the conversions of numbers. */
import { scalarOf, sizeOf, type Type } from "./types.ts";

/** A number, a truth, a vector or array of them, or a struct by its members' names. */
export type Value = number | boolean | Value[] | { [member: string]: Value };

/** An index outside of an array: what a GPU would clamp, or read from what lies beside. */
export class OutOfBounds extends Error {}

/** f16, round to nearest, ties to even. */
export function half(x: number): number {
  if (!Number.isFinite(x) || x === 0) return x;
  const unit = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(x)))) - 10);
  const units = Math.abs(x) / unit;
  const below = Math.floor(units);
  const up = units - below > 0.5 || (units - below === 0.5 && below % 2 === 1);
  const size = (up ? below + 1 : below) * unit;
  return Math.sign(x) * (size > 65504 ? Number.POSITIVE_INFINITY : size);
}

export function halfOfBits(bits: number): number {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

export function bitsOfHalf(x: number): number {
  if (Number.isNaN(x)) return 0x7e00;
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const size = Math.abs(half(x));
  if (size === Number.POSITIVE_INFINITY) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -14)));
  const fraction = size / 2 ** (exponent - 10);
  return sign | (fraction >= 1024 ? ((exponent + 15) << 10) | (fraction - 1024) : fraction);
}

const words = new DataView(new ArrayBuffer(4));
const toBits: Readonly<Record<string, (value: number) => void>> = {
  f32: (value) => words.setFloat32(0, value),
  u32: (value) => words.setUint32(0, value),
  i32: (value) => words.setInt32(0, value),
};
const fromBits: Readonly<Record<string, () => number>> = {
  f32: () => words.getFloat32(0),
  u32: () => words.getUint32(0),
  i32: () => words.getInt32(0),
};

/** What translated functions call, by the names that they call it by. */
export const runtime = {
  fround: Math.fround,
  half,
  toUnsigned: (x: number) => Math.min(Math.max(Math.trunc(x), 0), 2 ** 32 - 1),
  toSigned: (x: number) => Math.min(Math.max(Math.trunc(x), -(2 ** 31)), 2 ** 31 - 1),
  quotient: (a: number, b: number) => (b === 0 ? a : Math.trunc(a / b)),
  remainder: (a: number, b: number) => (b === 0 ? 0 : a % b),
  bitcast(from: string, to: string, value: number): number {
    toBits[from]?.(value);
    return fromBits[to]?.() ?? Number.NaN;
  },
  unpack2x16float: (word: number): Value => [halfOfBits(word & 0xffff), halfOfBits(word >>> 16)],
  pack2x16float: ([low = 0, high = 0]: number[]): number => (bitsOfHalf(low) | (bitsOfHalf(high) << 16)) >>> 0,
  at(array: Value[], index: number, name: string): Value {
    const found = array[index];
    if (found === undefined) throw new OutOfBounds(`${name}[${index}] of ${array.length}`);
    return found;
  },
  put(array: Value[], index: number, value: Value, name: string): void {
    if (!(index < array.length)) throw new OutOfBounds(`${name}[${index}] of ${array.length}`);
    array[index] = value;
  },
  /** A lane's value; what a lane gets from one that does not exist is NaN here. */
  ofLane(all: Value[], lane: number): Value {
    const found = all[lane];
    if (found !== undefined) return found;
    const [one] = all;
    return Array.isArray(one) ? one.map(() => Number.NaN) : Number.NaN;
  },
  select: (no: Value, yes: Value, condition: boolean): Value => (condition ? yes : no),
  atomicAdd(atom: { value: number }, more: number): number {
    const before = atom.value;
    atom.value = (before + more) >>> 0;
    return before;
  },
  atomicMax(atom: { value: number }, other: number): number {
    const before = atom.value;
    atom.value = Math.max(before, other);
    return before;
  },
  atomicMin(atom: { value: number }, other: number): number {
    const before = atom.value;
    atom.value = Math.min(before, other);
    return before;
  },
  atomicStore(atom: { value: number }, value: number): void {
    atom.value = value;
  },
  /** A value that is read after one barrier and before another. */
  between: (_before: unknown, value: Value, _after: unknown): Value => value,
  with(vector: Value[], index: number, value: Value): Value[] {
    const changed = vector.slice();
    changed[index] = value;
    return changed;
  },
};

/** The zero value of a type. */
export function zeroOf(type: Type): Value {
  switch (type.kind) {
    case "scalar":
      return type.scalar === "bool" ? false : 0;
    case "vector":
      return new Array(type.size).fill(type.scalar === "bool" ? false : 0);
    case "array":
      return Array.from({ length: type.count }, () => zeroOf(type.element));
    case "struct":
      return Object.fromEntries([...type.members].map(([name, member]) => [name, zeroOf(member)]));
    default:
      return 0;
  }
}

/** A binding as its kernel sees it: numbers or vectors of them over the bytes that are bound. */
export class Binding {
  readonly name: string;
  readonly length: number;
  readonly #numbers: { [index: number]: number };
  readonly #size: number;
  readonly #isHalf: boolean;

  constructor(name: string, element: Type, bytes: ArrayBuffer) {
    const scalar = scalarOf(element);
    this.name = name;
    this.#size = sizeOf(element);
    this.#isHalf = scalar === "f16";
    const views = { f32: Float32Array, u32: Uint32Array, i32: Int32Array, f16: Uint16Array } as const;
    const view = views[scalar as keyof typeof views];
    if (view === undefined) throw new Error(`a binding of ${scalar ?? element.kind} is not understood`);
    const numbers = new view(bytes);
    this.#numbers = numbers;
    this.length = Math.floor(numbers.length / this.#size);
  }

  #check(index: number, what: string): void {
    if (!(index < this.length)) throw new OutOfBounds(`${what} ${this.name}[${index}] of ${this.length}`);
  }

  load(index: number): Value {
    this.#check(index, "reads");
    const numbers = this.#numbers as Float32Array;
    const first = index * this.#size;
    if (this.#size === 1) return this.#isHalf ? halfOfBits(numbers[first] ?? 0) : (numbers[first] ?? 0);
    const value: number[] = [];
    for (let i = first; i < first + this.#size; i++) {
      value.push(this.#isHalf ? halfOfBits(numbers[i] ?? 0) : (numbers[i] ?? 0));
    }
    return value;
  }

  store(index: number, value: Value): void {
    this.#check(index, "writes");
    const first = index * this.#size;
    const all = (Array.isArray(value) ? value : [value]) as number[];
    for (const [i, one] of all.entries()) this.#numbers[first + i] = this.#isHalf ? bitsOfHalf(one) : one;
  }
}
