/**
 * Weights on their way by pieces: whatever the size of a piece and however parts share words, what is on the device is
 * what the files hold. And what a whole transfer says of numbers that a format cannot hold.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Arena, ParameterLayout, type ParameterSpec } from "../../../../src/engine/gpu/arena.ts";
import { elementCount } from "../../../../src/engine/gpu/tensor.ts";
import { Model } from "../../../../src/engine/model/model.ts";
import { openWeights, writeWeights } from "../../../../src/engine/model/weights/weight-files.ts";
import { arenaPieces, fillTensor } from "../../../../src/engine/model/weights/weight-transfer.ts";
import { ModelFormatError, NumericError } from "../../../../src/errors.ts";
import { normals, seeded } from "../../../helpers/compare.ts";
import { sharedDevice } from "../../../helpers/device.ts";
import { freshPath, gpt2, llama, temporaryFolder, withConfig, withWeights } from "../../../helpers/folders.ts";
import { stored } from "../../../helpers/gpu.ts";

const folder = temporaryFolder();
const device = await sharedDevice();

/** Three parts of odd sizes: the second starts in the middle of a word, the third at the start of one. */
const parts = [
  { name: "q", shape: [3, 7] },
  { name: "k", shape: [1, 7] },
  { name: "v", shape: [5, 7] },
] as const;
const spec: ParameterSpec = { name: "qkv", shape: [9, 7], decay: true, parts };
/** A neighbour, into which nothing may run over. */
const next: ParameterSpec = { name: "next", shape: [3, 3], decay: true, parts: [{ name: "next", shape: [3, 3] }] };

const values = normals(seeded(12), 63);
const path = freshPath(folder, "weights");
const starts = [0, 21, 28];
mkdirSync(path);
await writeWeights(
  path,
  parts.map(({ name, shape }, part) => {
    const start = starts[part] ?? 0;
    return { name, shape, data: values.slice(start, start + elementCount(shape)) };
  }),
);
const files = await openWeights(path);
afterAll(() => files.close());

describe.each(["f32", "bf16", "f16"] as const)("weights stored as %s", (format) => {
  it.each([1, 2, 3, 5, 7, 8, 21, 1000])("come and go in pieces of %i", async (piece) => {
    const arena = new Arena(device, new ParameterLayout([spec, next], { format }), "scratch", "pieces");
    const neighbour = arena.window("next");
    device.upload({ ...neighbour, shape: [8] }, new Uint8Array(format === "f32" ? 32 : 16).fill(1));
    const before = await device.downloadBytes(neighbour);
    await fillTensor(arena, arena.window("qkv"), files, ["q", "k", "v"], format, piece);
    const wanted = stored(format, [63], values).values;
    for (const part of arena.layout.parts()) {
      if (part.name === "next") continue;
      const found: number[] = [];
      for await (const numbers of arenaPieces(arena, part, piece)) {
        expect(numbers.length).toBeLessThanOrEqual(piece);
        found.push(...numbers);
      }
      const start = starts[parts.findIndex(({ name }) => name === part.name)] ?? 0;
      expect(found).toEqual([...wanted.subarray(start, start + elementCount(part.shape))]);
    }
    expect(await device.downloadBytes(neighbour)).toEqual(before);
    arena.free();
  });
});

describe("numbers that a format cannot hold", () => {
  /** Above the largest bf16 by more than half a unit; a number of f32 all the same. */
  const large = withWeights(folder, llama, (_, data) => {
    data.writeFloatLE(3.4e38, 4);
    return undefined;
  });

  it.each([
    ["f16", "float16; load it as bfloat16 or float32."],
    ["bf16", "bfloat16; load it as float32."],
  ] as const)("are refused on the way in, as %s", async (dtype, remedy) => {
    const before = device.totalBytes;
    const loading = Model.load(device, large, { dtype });
    await expect(loading).rejects.toThrow(ModelFormatError);
    await expect(loading).rejects.toThrow(`${join(large, "model.safetensors")}: tensor "`);
    await expect(loading).rejects.toThrow(`holds ${Math.fround(3.4e38)} (element 1), too large for ${remedy}`);
    expect(device.totalBytes).toBe(before);
  });

  it.each([
    ["f16", "cannot be saved as float16", "save it as bfloat16 or float32."],
    ["bf16", "cannot be saved as bfloat16", "save it as float32."],
  ] as const)("are refused on the way out, as %s", async (dtype, found, remedy) => {
    const model = await Model.load(device, large);
    const saving = model.save(freshPath(folder, "saved"), { dtype });
    await expect(saving).rejects.toThrow(NumericError);
    await expect(saving).rejects.toThrow(found);
    await expect(saving).rejects.toThrow(remedy);
    model.free();
  });
});

describe("config.json beside weights of another dtype", () => {
  const savedConfig = async (model: string, dtype: "f32" | "f16" | "bf16") => {
    const loaded = await Model.load(device, model);
    const into = freshPath(folder, "saved");
    await loaded.save(into, { dtype });
    loaded.free();
    return readFileSync(join(into, "config.json"), "utf8");
  };
  const text = readFileSync(join(llama, "config.json"), "utf8");

  it("keeps every other character: 10000.0 stays a float for Python", async () => {
    expect(text).toContain('"rope_theta": 10000.0');
    expect(await savedConfig(llama, "bf16")).toBe(
      text.replace('"torch_dtype": "float32"', '"torch_dtype": "bfloat16"'),
    );
    expect(await savedConfig(llama, "f32")).toBe(text);
  });

  it("changes both names of the dtype, and none that stands deeper or in a text", async () => {
    const model = withConfig(folder, llama, {});
    const changed = text
      .replace('"torch_dtype": "float32"', '"dtype" : null,\n\t"torch_dtype": "float32"')
      .replace(
        '"bos_token_id"',
        '"note": "\\"dtype\\": \\"float32\\" {", "task_specific_params": {"torch_dtype": "float32"}, "bos_token_id"',
      );
    writeFileSync(join(model, "config.json"), changed);
    expect(await savedConfig(model, "f16")).toBe(
      changed
        .replace('"dtype" : null', '"dtype" : "float16"')
        .replace('\t"torch_dtype": "float32"', '\t"torch_dtype": "float16"'),
    );
  });

  it("names a dtype where it named none, unless that is float32", async () => {
    const plain = readFileSync(join(gpt2, "config.json"), "utf8");
    const { torch_dtype: _, dtype: __, ...others } = JSON.parse(plain) as Record<string, unknown>;
    const model = withConfig(folder, gpt2, { torch_dtype: undefined, dtype: undefined });
    expect(JSON.parse(await savedConfig(model, "bf16"))).toEqual({ torch_dtype: "bfloat16", ...others });
    expect(await savedConfig(model, "f32")).toBe(JSON.stringify(others));
  });
});

it("the index of shards is the text that Python's json.dumps(index, indent=2, sort_keys=True) gives", async () => {
  const into = freshPath(folder, "shards");
  mkdirSync(into);
  const tensor = (name: string, size: number) => ({ name, shape: [size], data: new Float32Array(size) });
  // The second is larger than a shard by itself.
  await writeWeights(into, [tensor("layers.10.w", 2), tensor("b", 9), tensor("layers.9.w", 3), tensor("A", 2)], 20);
  expect(readFileSync(join(into, "model.safetensors.index.json"), "utf8")).toBe(`{
  "metadata": {
    "total_size": 64
  },
  "weight_map": {
    "A": "model-00003-of-00003.safetensors",
    "b": "model-00002-of-00003.safetensors",
    "layers.10.w": "model-00001-of-00003.safetensors",
    "layers.9.w": "model-00003-of-00003.safetensors"
  }
}
`);
});
