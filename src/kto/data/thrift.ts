/**
 * Thrift's compact protocol, in which parquet writes its footer and its page headers: a reader that believes no length,
 * and a writer. Not what the fields mean.
 */

/** What is wrong with the content of a file, in words that follow "the file is damaged:". */
export class Damage extends Error {}

/** Type codes of the protocol; a list's elements and a struct's fields have one each. */
export const thrift = { true: 1, false: 2, i8: 3, i16: 4, i32: 5, i64: 6, double: 7, binary: 8, list: 9, struct: 12 };

/** Whole numbers of all widths are bigints; a double is its 8 bytes. */
export type ThriftValue = boolean | bigint | Uint8Array | ThriftList | ThriftStruct;
export interface ThriftList {
  readonly elementType: number;
  readonly items: readonly ThriftValue[];
}
/** Fields in the order of the file. */
export type ThriftStruct = readonly ThriftField[];
export interface ThriftField {
  readonly id: number;
  readonly type: number;
  readonly value: ThriftValue;
}

/** Structs and lists within each other; parquet has 8. */
const DEEPEST = 32;

/** A struct that begins at `start`, and where it ends. Throws Damage. */
export function readThrift(bytes: Uint8Array, start: number): { fields: ThriftStruct; end: number } {
  const reader = new ThriftReader(bytes, start);
  const fields = reader.struct(0);
  return { fields, end: reader.at };
}

/** The field with this id, if it is a struct. */
export function structOf(fields: ThriftStruct, id: number): ThriftStruct | undefined {
  const value = fieldOf(fields, id);
  return Array.isArray(value) ? (value as ThriftStruct) : undefined;
}

/** The field with this id, if it is a whole number. */
export function numberOf(fields: ThriftStruct, id: number): number | undefined {
  const value = fieldOf(fields, id);
  return typeof value === "bigint" ? Number(value) : undefined;
}

export function fieldOf(fields: ThriftStruct, id: number): ThriftValue | undefined {
  return fields.find((field) => field.id === id)?.value;
}

/** Without the fields of these ids, and with the struct or the list of structs under one id changed. */
export function pruned(
  fields: ThriftStruct,
  dropped: readonly number[],
  inner?: { readonly id: number; readonly change: (fields: ThriftStruct) => ThriftStruct },
): ThriftStruct {
  const changed = (value: ThriftValue): ThriftValue => {
    if (inner === undefined || typeof value !== "object" || value instanceof Uint8Array) return value;
    return "items" in value ? { ...value, items: value.items.map(changed) } : inner.change(value);
  };
  return fields
    .filter(({ id }) => !dropped.includes(id))
    .map((field) => (field.id === inner?.id ? { ...field, value: changed(field.value) } : field));
}

/** A number of up to 64 bits, seven to a byte, and where it ends. Throws Damage. */
export function readVarint(bytes: Uint8Array, start: number, end = bytes.length): { value: bigint; end: number } {
  let value = 0n;
  for (let at = start, shift = 0n; at < end && shift < 70n; at++, shift += 7n) {
    const byte = bytes[at] as number;
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return { value, end: at + 1 };
  }
  throw new Damage("a number in it does not end");
}

class ThriftReader {
  readonly #bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  struct(depth: number): ThriftStruct {
    if (depth > DEEPEST) throw new Damage(`it nests more than ${DEEPEST} deep`);
    const fields: ThriftField[] = [];
    let id = 0;
    for (let byte = this.#byte(); (byte & 15) !== 0; byte = this.#byte()) {
      const type = byte & 15;
      id = byte >> 4 ? id + (byte >> 4) : Number(this.#zigzag());
      // A field's truth is its type; an element's, in a list, a byte.
      const value = type <= thrift.false ? type === thrift.true : this.#value(type, depth);
      fields.push({ id, type, value });
    }
    return fields;
  }

  #value(type: number, depth: number): ThriftValue {
    switch (type) {
      case thrift.true:
      case thrift.false:
        return this.#byte() === 1;
      case thrift.i8:
        return BigInt.asIntN(8, BigInt(this.#byte()));
      case thrift.i16:
      case thrift.i32:
      case thrift.i64:
        return this.#zigzag();
      case thrift.double:
        return this.#slice(8);
      case thrift.binary:
        return this.#slice(Number(this.#varint()));
      case thrift.list:
        return this.#list(depth + 1);
      case thrift.struct:
        return this.struct(depth + 1);
    }
    throw new Damage("a field in it is of no known type");
  }

  #list(depth: number): ThriftList {
    if (depth > DEEPEST) throw new Damage(`it nests more than ${DEEPEST} deep`);
    const byte = this.#byte();
    const count = byte >> 4 === 15 ? Number(this.#varint()) : byte >> 4;
    // Every element has at least a byte.
    if (count > this.#bytes.length - this.at) throw new Damage("a list in it is longer than the file");
    const items: ThriftValue[] = [];
    while (items.length < count) items.push(this.#value(byte & 15, depth));
    return { elementType: byte & 15, items };
  }

  #byte(): number {
    const byte = this.#bytes[this.at++];
    if (byte === undefined) throw new Damage("a record in it does not end");
    return byte;
  }

  #slice(length: number): Uint8Array {
    if (length > this.#bytes.length - this.at) throw new Damage("a text in it is longer than the file");
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }

  #varint(): bigint {
    const { value, end } = readVarint(this.#bytes, this.at);
    this.at = end;
    return value;
  }

  #zigzag(): bigint {
    const value = this.#varint();
    return (value >> 1n) ^ -(value & 1n);
  }
}

/** The bytes of a struct, as `readThrift` reads it. */
export function writeThrift(fields: ThriftStruct): Uint8Array {
  const parts: Uint8Array[] = [];
  writeStruct(parts, fields);
  return concatenated(parts);
}

export function concatenated(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function writeStruct(parts: Uint8Array[], fields: ThriftStruct): void {
  let last = 0;
  for (const { id, type, value } of fields) {
    const step = id - last;
    parts.push(step > 0 && step < 16 ? Uint8Array.of((step << 4) | type) : Uint8Array.of(type, ...zigzag(BigInt(id))));
    if (type > thrift.false) writeValue(parts, type, value);
    last = id;
  }
  parts.push(Uint8Array.of(0));
}

function writeValue(parts: Uint8Array[], type: number, value: ThriftValue): void {
  if (typeof value === "boolean") parts.push(Uint8Array.of(value ? 1 : 2));
  else if (typeof value === "bigint") {
    parts.push(Uint8Array.from(type === thrift.i8 ? [Number(value & 255n)] : zigzag(value)));
  } else if (value instanceof Uint8Array) {
    if (type === thrift.binary) parts.push(Uint8Array.from(varint(BigInt(value.length))));
    parts.push(value);
  } else if ("items" in value) {
    const { elementType, items } = value;
    parts.push(Uint8Array.of((15 << 4) | elementType, ...varint(BigInt(items.length))));
    for (const item of items) writeValue(parts, elementType, item);
  } else writeStruct(parts, value);
}

function zigzag(value: bigint): number[] {
  return varint(BigInt.asUintN(64, (value << 1n) ^ (value >> 63n)));
}

function varint(value: bigint): number[] {
  const bytes: number[] = [];
  for (let rest = value; bytes.length === 0 || rest > 0n; rest >>= 7n) {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
  }
  return bytes;
}
