import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSafetensors, writeSafetensors } from "../../../src/engine/files/safetensors.ts";
import { ModelFormatError } from "../../../src/errors.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "safetensors-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A file from a header (object or raw text) and its data. */
async function file(header: unknown, data: Uint8Array | number = 0, claimedLength?: number): Promise<string> {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(claimedLength ?? text.length));
  const path = join(folder, `${Math.random().toString(36).slice(2)}.safetensors`);
  await writeFile(path, Buffer.concat([length, text, typeof data === "number" ? Buffer.alloc(data) : data]));
  return path;
}

const f32 = (shape: number[], begin: number, end: number) => ({ dtype: "F32", shape, data_offsets: [begin, end] });

async function copy(from: string, to: string) {
  const opened = await openSafetensors(from);
  await writeSafetensors(
    to,
    [...opened.tensors].map(([name, { shape }]) => ({ name, shape, data: () => opened.readF32(name) })),
    opened.metadata,
  );
  await opened.close();
}

describe("safetensors", () => {
  it("reads and rewrites a file of the safetensors library to the same bytes", async () => {
    // Written by safetensors 0.8.0 (Python): tensors sorted by name, a scalar, an empty tensor, a name in UTF-8.
    const original = "test/fixtures/data/library-written.safetensors";
    const rewritten = join(folder, "rewritten.safetensors");
    await copy(original, rewritten);
    expect(await readFile(rewritten)).toEqual(await readFile(original));
  });

  it("reads the values bit by bit, also where the data is not aligned to 4 bytes", async () => {
    const values = new Float32Array([1, -0, Number.NaN, 2 ** -149, -Infinity, 3.4e38]);
    const header = JSON.stringify({ a: f32([1], 0, 4), b: f32([5], 4, 24) });
    for (const pad of ["", " ", "  ", "   "]) {
      const opened = await openSafetensors(await file(header + pad, new Uint8Array(values.buffer)));
      const b = await opened.readF32("b");
      expect(new Uint32Array(b.slice().buffer)).toEqual(new Uint32Array(values.slice(1).buffer));
      await opened.close();
    }
  });

  it("takes tensors whose header order is not their order in the file", async () => {
    const opened = await openSafetensors(await file({ late: f32([1], 4, 8), early: f32([1], 0, 4) }, 8));
    expect([...opened.tensors.keys()]).toEqual(["early", "late"]);
    await opened.close();
  });

  it("names tensor and dtype when values are no floating-point numbers of 16 or 32 bits", async () => {
    const path = await file({ ids: { dtype: "I16", shape: [2], data_offsets: [0, 4] } }, 4);
    const opened = await openSafetensors(path);
    await expect(opened.readF32("ids")).rejects.toThrow(/tensor "ids" is stored as I16, but only F32, F16, BF16/);
    await expect(opened.readF32("other")).rejects.toThrow(/has no tensor "other"/);
    await opened.close();
  });

  it.each<[string, () => Promise<string>, RegExp]>([
    [
      "a file shorter than 8 bytes",
      async () => {
        const path = join(folder, "short.safetensors");
        await writeFile(path, "abc");
        return path;
      },
      /3 bytes long, too short/,
    ],
    ["a header beyond the file", () => file("{}", 0, 1000), /claims a header of 1000 bytes/],
    ["a header length with the top bit set", () => file("{}", 0, 2 ** 63), /claims a header of 9223372036854775808/],
    ["a header that is not JSON", () => file("{oops}"), /header is not valid JSON/],
    ["a header that is not an object", () => file("[]"), /not a JSON object/],
    ["an unknown dtype", () => file({ t: { dtype: "F128", shape: [1], data_offsets: [0, 4] } }, 4), /"t".*"F128"/],
    ["a negative size", () => file({ t: f32([-1], 0, 4) }, 4), /"t" has the shape \[-1\]/],
    ["offsets that run backwards", () => file({ t: f32([1], 4, 0) }, 4), /"t".*before they begin/],
    ["a shape that is not its bytes", () => file({ t: f32([2, 3], 0, 20) }, 20), /"t" of shape \[2, 3\].*24 bytes.*20/],
    ["an overlap", () => file({ a: f32([2], 0, 8), b: f32([2], 4, 12) }, 12), /"a" and "b" overlap/],
    ["a hole", () => file({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), /4 bytes before tensor "b"/],
    ["bytes after the last tensor", () => file({ a: f32([1], 0, 4) }, 7), /last 3 bytes belong to no tensor/],
    ["truncated data", () => file({ a: f32([1], 0, 4), b: f32([4], 4, 20) }, 10), /truncated: tensor "b" ends at/],
    [
      "a repeated name",
      () => file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "\\u0061" : {}}`, 4),
      /twice/,
    ],
    ["metadata that is not strings", () => file({ __metadata__: { n: 1 } }), /__metadata__/],
  ])("refuses %s, naming file and tensor", async (_, make, message) => {
    const path = await make();
    const error = await openSafetensors(path).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ModelFormatError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toContain(path);
  });

  it("does not take a nested key or a key inside a string for a repeated name", async () => {
    const opened = await openSafetensors(
      await file({ __metadata__: { a: '"a":{', b: "}" }, a: f32([0], 0, 0), b: f32([0], 0, 0) }),
    );
    expect([...opened.tensors.keys()]).toEqual(["a", "b"]);
    await opened.close();
  });

  it("leaves the old file whole when a tensor cannot be brought or has the wrong size", async () => {
    const path = join(folder, "kept.safetensors");
    await writeSafetensors(path, [{ name: "t", shape: [2], data: new Float32Array([1, 2]) }]);
    const before = await readFile(path);
    await expect(
      writeSafetensors(path, [
        { name: "t", shape: [2], data: new Float32Array(2) },
        { name: "u", shape: [3], data: new Float32Array(2) },
      ]),
    ).rejects.toThrow(/tensor "u" of shape \[3\] was given 2 values/);
    expect(await readFile(path)).toEqual(before);
    expect((await readdir(folder)).filter((name) => name.includes("kept"))).toEqual(["kept.safetensors"]);
  });

  it("refuses to write a repeated or reserved name", async () => {
    const one = { name: "t", shape: [1], data: new Float32Array(1) };
    const path = join(folder, "never.safetensors");
    await expect(writeSafetensors(path, [one, one])).rejects.toThrow(/"t" is repeated/);
    await expect(writeSafetensors(path, [{ ...one, name: "__metadata__" }], {})).rejects.toThrow(/reserved/);
  });
});
