/**
 * Records of TensorBoard's event files. A record is framed as TFRecord does it (length, its checksum, data, its
 * checksum; the checksum is CRC-32C, masked) and holds one protobuf message of tensorflow.Event. The messages are
 * written byte for byte as TensorBoard's own writer does: fields in the order of their numbers, defaults left out.
 */
import { joined } from "../../../engine/bytes.ts";

/** What an event holds beside its time and step. */
export type EventContent =
  | { readonly version: "brain.Event:2" }
  | { readonly scalars: Readonly<Record<string, number>> }
  | { readonly text: string; readonly tag: string }
  /** A run that goes on: TensorBoard drops what earlier files hold from this event's step on. */
  | { readonly sessionStarts: true };

/**
 * One event as a framed record.
 *
 * @param seconds Unix time
 * @param step updates done
 */
export function eventRecord(seconds: number, step: number, content: EventContent): Uint8Array {
  return framed(joined([double(1, seconds), ...(step === 0 ? [] : [varintField(2, step)]), contentField(content)]));
}

function contentField(content: EventContent): Uint8Array {
  if ("version" in content) return bytes(3, utf8(content.version));
  if ("sessionStarts" in content) return bytes(7, varintField(1, 1)); // SessionLog.status START
  if ("text" in content) return bytes(5, bytes(1, textValue(content.tag, content.text)));
  const values = Object.entries(content.scalars).map(([tag, value]) =>
    bytes(1, joined([bytes(1, utf8(tag)), float(2, value)])),
  );
  return bytes(5, joined(values));
}

/** Summary.Value of a text: a tensor of one string, for TensorBoard's plugin "text". */
function textValue(tag: string, text: string): Uint8Array {
  const shape = bytes(2, varintField(1, 1));
  const tensor = joined([varintField(1, 7), bytes(2, shape), bytes(8, utf8(text))]); // dtype DT_STRING
  const metadata = bytes(1, bytes(1, utf8("text")));
  return joined([bytes(1, utf8(tag)), bytes(8, tensor), bytes(9, metadata)]);
}

function framed(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(12 + data.length + 4);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc32c(data), true);
  return record;
}

/** TFRecord's mask, which keeps a checksum of data that holds checksums from being weak. */
function maskedCrc32c(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** The polynomial of CRC-32C (Castagnoli), bits reversed; RFC 3720. */
const POLYNOMIAL = 0x82f63b78;

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  return crc;
});

export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crcTable[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function varint(value: number): number[] {
  const groups: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) groups.push((rest % 128) + 128);
  return [...groups, rest];
}

function varintField(field: number, value: number): Uint8Array {
  return Uint8Array.from([...varint(field * 8), ...varint(value)]);
}

function bytes(field: number, content: Uint8Array): Uint8Array {
  return joined([Uint8Array.from([...varint(field * 8 + 2), ...varint(content.length)]), content]);
}

function double(field: number, value: number): Uint8Array {
  const encoded = new Uint8Array(9);
  encoded[0] = field * 8 + 1;
  new DataView(encoded.buffer).setFloat64(1, value, true);
  return encoded;
}

function float(field: number, value: number): Uint8Array {
  const encoded = new Uint8Array(5);
  encoded[0] = field * 8 + 5;
  new DataView(encoded.buffer).setFloat32(1, value, true);
  return encoded;
}

const encoder = new TextEncoder();
function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}
