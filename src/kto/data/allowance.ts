/**
 * A limit to the memory that a thread's constructors hand out. A decoder believes the counts in its input: it makes an
 * array of a thousand million values before it looks at the first. V8's own limits are no help there, since ArrayBuffers
 * are not part of the heap, and a single array that is larger than the heap ends the process rather than the thread.
 */

/** What may still be taken, counted down and never up. */
export interface Allowance {
  /** Values of arrays that are made with a length. */
  elements: number;
  /** Bytes of typed arrays and ArrayBuffers that are made with a length. */
  bytes: number;
}

/** More was asked for than allowed. */
export class AllowanceError extends Error {}

/** Takes bytes that no constructor sees, such as those of a WebAssembly memory. Throws AllowanceError. */
export function takeBytes(allowance: Allowance, count: number): void {
  allowance.bytes -= Math.max(0, count);
  if (allowance.bytes < 0) throw new AllowanceError("more bytes were asked for than allowed");
}

const typedArrays = [
  ...(["Int8Array", "Uint8Array", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array"] as const),
  ...(["Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array"] as const),
];
type Scope = Record<string, unknown> & Pick<typeof globalThis, "Array" | "ArrayBuffer" | (typeof typedArrays)[number]>;

/**
 * Makes the constructors of a scope take what they hand out from an allowance. Arrays made with a length never grow
 * beyond it: a write behind their end throws, as it must where a run in the input has more values than it says.
 *
 * @param scope the global object of a thread that does nothing else
 */
export function limitConstructors(scope: Scope, allowance: Allowance): void {
  const lengthOf = (args: readonly unknown[]) => (typeof args[0] === "number" ? args[0] : 0);
  for (const name of typedArrays) {
    const size = scope[name].BYTES_PER_ELEMENT;
    scope[name] = new Proxy(scope[name], {
      construct(target, args) {
        takeBytes(allowance, size * lengthOf(args));
        return Reflect.construct(target, args);
      },
    }) as never;
  }
  scope.ArrayBuffer = new Proxy(scope.ArrayBuffer, {
    construct(target, args) {
      takeBytes(allowance, lengthOf(args));
      return Reflect.construct(target, args);
    },
  });
  const array = (target: ArrayConstructor, args: unknown[]): unknown[] => {
    const length = lengthOf(args);
    if (args.length !== 1 || length <= 0) return Reflect.construct(target, args);
    allowance.elements -= length;
    if (allowance.elements < 0) throw new AllowanceError("more values were asked for than allowed");
    return Object.preventExtensions(Reflect.construct(target, args).fill(undefined));
  };
  scope.Array = new Proxy(scope.Array, {
    construct: (target, args) => array(target, args),
    apply: (target, _, args) => array(target, args),
  });
}
