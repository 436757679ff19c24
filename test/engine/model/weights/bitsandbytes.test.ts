/** What bitsandbytes may have saved and cannot be read: each is refused by file and tensor. Numbers: quantized-formats. */
import { describe, expect, it } from "vitest";
import { openSafetensors } from "../../../../src/engine/files/safetensors.ts";
import { withSavedCodes } from "../../../../src/engine/model/weights/bitsandbytes.ts";
import { tensorTable } from "../../../../src/engine/model/weights/weight-files.ts";
import { ModelFormatError } from "../../../../src/errors.ts";
import { freshPath, temporaryFolder } from "../../../helpers/folders.ts";
import { type RawTensor, writeRawTensors } from "../../../helpers/raw-tensors.ts";

const folder = temporaryFolder();
const name = "model.layers.0.mlp.up_proj.weight";
const STATE = `${name}.quant_state.bitsandbytes__nf4`;

/** The tensors of one matrix of the fixture. */
async function saved(file: "nf4" | "nf4-double"): Promise<Map<string, RawTensor>> {
  const opened = await openSafetensors(`test/fixtures/quantised/${file}.safetensors`);
  const tensors = new Map<string, RawTensor>();
  for (const [tensor, { dtype, shape }] of opened.tensors) {
    if (tensor.startsWith(name)) tensors.set(tensor, { name: tensor, dtype, shape, data: await opened.read(tensor) });
  }
  await opened.close();
  return tensors;
}

function withState(tensors: Map<string, RawTensor>, changes: Readonly<Record<string, unknown>>): void {
  const own = tensors.get(STATE);
  if (own === undefined) throw new Error("the fixture has no state");
  const state = { ...JSON.parse(new TextDecoder().decode(own.data)), ...changes };
  const data = new TextEncoder().encode(JSON.stringify(state));
  tensors.set(STATE, { ...own, shape: [data.length], data });
}

async function read(tensors: ReadonlyMap<string, RawTensor>) {
  const path = freshPath(folder, "weights.safetensors");
  writeRawTensors(path, [...tensors.values()]);
  const file = await openSafetensors(path);
  try {
    return await withSavedCodes(tensorTable([file]));
  } finally {
    await file.close();
  }
}

describe("a matrix in 4 bits", () => {
  it.each([
    ["nf4", `${name}.absmax`],
    ["nf4-double", `${name}.nested_absmax`],
  ] as const)("with a scale below 0 is refused when it is read (%s)", async (file, beside) => {
    const tensors = await saved(file);
    scaled(tensors, beside, -1);
    const path = freshPath(folder, "weights.safetensors");
    writeRawTensors(path, [...tensors.values()]);
    const opened = await openSafetensors(path);
    const found = (await withSavedCodes(tensorTable([opened]))).get(name);
    await expect(found?.saved?.scales()).rejects.toThrow(/a list of magnitudes, and its number 0 is -/);
    await opened.close();
  });

  it("is one tensor of its own shape, whatever its codes are stored as", async () => {
    const tensors = await saved("nf4-double");
    const codes = tensors.get(name);
    if (codes === undefined) throw new Error("the fixture has no codes");
    tensors.set(name, { ...codes, dtype: "BF16", shape: [codes.data.length / 2, 1] });
    const found = await read(tensors);
    expect([...found.keys()]).toEqual([name]);
    expect(found.get(name)).toMatchObject({ dtype: "NF4", shape: [5, 51] });
  });

  it.each<[string, "nf4" | "nf4-double", (tensors: Map<string, RawTensor>) => void, string]>([
    [
      "another type",
      "nf4",
      (t) => rename(t, STATE, `${name}.quant_state.bitsandbytes__fp4`),
      "quantised as fp4; of 4-bit",
    ],
    ["other blocks", "nf4", (t) => withState(t, { blocksize: 128 }), "in blocks of 128; only blocks of 64"],
    ["another shape", "nf4", (t) => withState(t, { shape: [6, 51] }), "128 bytes of codes, not those of [6, 51]"],
    ["no shape", "nf4", (t) => withState(t, { shape: "5, 51" }), 'a state with the shape "5, 51"'],
    ["no scales", "nf4", (t) => void t.delete(`${name}.absmax`), 'its "absmax" is missing, not F32 [4]'],
    ["scales that are nested", "nf4-double", (t) => withState(t, { nested_offset: null }), 'its "absmax" is U8 [4]'],
    ["nested in other blocks", "nf4-double", (t) => withState(t, { nested_blocksize: 64 }), "nested_blocksize 64"],
    ["a table of its own", "nf4", (t) => scaled(t, `${name}.quant_map`), "a table of numbers of its own"],
    ["no state", "nf4", (t) => void t.delete(STATE), `and "${STATE}" is missing`],
    ["a state without codes", "nf4", (t) => void t.delete(name), `the state of "${name}", which the files do not hold`],
  ])("with %s is refused", async (_, file, change, sentence) => {
    const tensors = await saved(file);
    change(tensors);
    const reading = read(tensors);
    await expect(reading).rejects.toThrow(ModelFormatError);
    await expect(reading).rejects.toThrow(sentence);
  });
});

function rename(tensors: Map<string, RawTensor>, from: string, to: string): void {
  const tensor = tensors.get(from);
  if (tensor === undefined) throw new Error(`the fixture has no ${from}`);
  tensors.delete(from);
  tensors.set(to, { ...tensor, name: to });
}

function scaled(tensors: Map<string, RawTensor>, of: string, by = 2): void {
  const tensor = tensors.get(of);
  if (tensor === undefined) throw new Error(`the fixture has no ${of}`);
  const data = new Float32Array(tensor.data.slice().buffer).map((value) => by * value);
  tensors.set(of, { ...tensor, data });
}
