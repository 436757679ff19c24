/** Model folders and feedback files made by damaging good ones, in a temporary folder of the test file. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

export const fixtures = "test/fixtures";
export const llama = `${fixtures}/llama/policy`;
export const gpt2 = `${fixtures}/gpt2/policy`;
/** A trained model of text, with its tokenizer. */
export const stories = "examples/quickstart/model";

/** One tensor in a safetensors header. */
export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [begin: number, end: number];
}

/** Tensors by name, and under `__metadata__` texts, which no test here touches. */
export type WeightsHeader = Record<string, HeaderEntry>;

/** The header's entry of a tensor that the model is known to have. */
export function entryOf(header: WeightsHeader, name: string): HeaderEntry {
  const entry = header[name];
  if (entry === undefined) throw new Error(`the fixture has no tensor "${name}"`);
  return entry;
}

/** A folder that is removed after the test file's last test. Call at the top of the file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "kto-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A new path in a folder. */
export function freshPath(folder: string, name: string): string {
  return join(mkdtempSync(join(folder, "t-")), name);
}

/** A file with this content in a folder of its own. */
export function fileIn(folder: string, name: string, content: string | Uint8Array): string {
  const path = freshPath(folder, name);
  writeFileSync(path, content);
  return path;
}

/** Rows as lines of JSON. */
export function jsonl(rows: readonly unknown[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

/** A copy of a model folder. */
export function copyOfModel(folder: string, model: string): string {
  const copy = freshPath(folder, "model");
  cpSync(model, copy, { recursive: true });
  return copy;
}

/** A copy whose config.json has these keys changed; undefined removes one. */
export function withConfig(folder: string, model: string, changes: Readonly<Record<string, unknown>>): string {
  const copy = copyOfModel(folder, model);
  const path = join(copy, "config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...changes }));
  return copy;
}

/**
 * A copy whose weights went through `change`, which edits header and data in place or returns others: a header as text
 * need not be JSON.
 */
export function withWeights(
  folder: string,
  model: string,
  change: (header: WeightsHeader, data: Buffer) => { header?: string; data?: Buffer } | undefined,
): string {
  return withWeightBytes(folder, model, (bytes) => {
    const headerLength = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerLength)) as WeightsHeader;
    const data = bytes.subarray(8 + headerLength);
    const changed = change(header, data);
    const text = Buffer.from(changed?.header ?? JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([length, text, changed?.data ?? data]);
  });
}

/** A copy whose weights file's bytes went through `change`. */
export function withWeightBytes(folder: string, model: string, change: (bytes: Buffer) => Uint8Array): string {
  const copy = copyOfModel(folder, model);
  const path = join(copy, "model.safetensors");
  writeFileSync(path, change(readFileSync(path)));
  return copy;
}
