/** Constructors that count what they hand out, in a scope of their own rather than this thread's. */
import { expect, test } from "vitest";
import { type Allowance, AllowanceError, limitConstructors } from "../../../src/kto/data/allowance.ts";

type Scope = Parameters<typeof limitConstructors>[0];

function limited(elements: number, bytes: number): { scope: Scope; left: Allowance } {
  const left = { elements, bytes };
  const names = Object.getOwnPropertyNames(globalThis).filter((name) => /Array(Buffer)?$/.test(name));
  const scope = Object.fromEntries(names.map((name) => [name, globalThis[name as keyof typeof globalThis]])) as Scope;
  limitConstructors(scope, left);
  return { scope, left };
}

test("typed arrays and buffers take bytes; views of what is there take none", () => {
  const { scope, left } = limited(0, 100);
  const bytes = new scope.Uint8Array(10);
  expect(bytes).toBeInstanceOf(Uint8Array);
  expect(left.bytes).toBe(90);
  new scope.Int32Array(10);
  new scope.ArrayBuffer(10);
  expect(left.bytes).toBe(40);
  new scope.Uint8Array(bytes.buffer, 2, 5);
  expect(left.bytes).toBe(40);
  expect(() => new scope.Uint8Array(-1)).toThrow(RangeError);
  new scope.BigInt64Array(5);
  expect(() => new scope.Float64Array(1)).toThrow(AllowanceError);
});

test("arrays take elements, made by new or by a call, and do not grow", () => {
  const { scope, left } = limited(10, 0);
  const values = new scope.Array<number>(4);
  expect(scope.Array(3)).toHaveLength(3);
  expect(left.elements).toBe(3);
  values[3] = 1;
  expect(() => {
    values[4] = 1;
  }).toThrow(TypeError);
  expect(() => new scope.Array(4)).toThrow(AllowanceError);
  expect(new scope.Array("a", "b")).toEqual(["a", "b"]);
  expect(scope.Array.from(new Set([1, 2]))).toEqual([1, 2]);
  expect(scope.Array.isArray(values)).toBe(true);
});
