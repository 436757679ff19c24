/**
 * Limits how much memory the constructors of a thread allocate. hyparquet trusts the counts in a file: it allocates an
 * array of 2^30 values before it reads the first one. V8's limits do not help, because ArrayBuffers are not part of the
 * heap, and a single array that does not fit into the heap ends the whole process and not only the thread.
 */

/** What may still be allocated. It only decreases; memory that was freed again counts too. */
export interface Allowance {
  /** Elements of arrays created with a length. */
  elements: number;
  /** Bytes of typed arrays and ArrayBuffers created with a length. */
  bytes: number;
}

/** Thrown when more is requested than the allowance has left. */
export class AllowanceError extends Error {}

/** Counts bytes that no constructor allocates, such as those of a WebAssembly memory. Throws AllowanceError. */
export function takeBytes(allowance: Allowance, count: number): void {
  allowance.bytes -= Math.max(0, count);
  if (allowance.bytes < 0) throw new AllowanceError("more bytes were requested than allowed");
}

const typedArrays = [
  ...(["Int8Array", "Uint8Array", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array"] as const),
  ...(["Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array"] as const),
];
type Scope = Record<string, unknown> & Pick<typeof globalThis, "Array" | "ArrayBuffer" | (typeof typedArrays)[number]>;

/**
 * Replaces the constructors of a scope by ones that count what they allocate. An array created with a length cannot
 * grow: writing behind its end throws, which stops a run-length code that has more values than its page.
 *
 * @param scope the global object of a thread that does nothing but decode
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
    if (allowance.elements < 0) throw new AllowanceError("more values were requested than allowed");
    return Object.preventExtensions(Reflect.construct(target, args).fill(undefined));
  };
  scope.Array = new Proxy(scope.Array, {
    construct: (target, args) => array(target, args),
    apply: (target, _, args) => array(target, args),
  });
}
