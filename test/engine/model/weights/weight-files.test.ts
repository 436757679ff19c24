/**
 * Weights in shards and in 16 bits: what Hugging Face writes is read, what is written it can read, and damage is named.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { openSafetensors, writeSafetensors } from "../../../../src/engine/files/safetensors.ts";
import { Model } from "../../../../src/engine/model/model.ts";
import { platform } from "../../../../src/engine/platform/index.ts";
import { ModelFormatError, NumericError } from "../../../../src/errors.ts";
import { bits } from "../../../helpers/compare.ts";
import { sharedDevice } from "../../../helpers/device.ts";
import { copyOfModel, freshPath, gpt2, llama, temporaryFolder, withWeights } from "../../../helpers/folders.ts";
import { stored } from "../../../helpers/gpu.ts";
import { llamaConfig, randomModel } from "../../../helpers/models.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

/** f32 values of every tensor of a folder on the device. */
async function valuesOf(model: string, options = {}): Promise<Map<string, number[]>> {
  const loaded = await Model.load(device, model, options);
  const tensors = await loaded.readTensors(loaded.weights);
  loaded.free();
  return new Map(tensors.map(({ name, data }) => [name, bits(data)]));
}

/** Bytes and dtype of each tensor of a file. */
async function bytesOf(path: string): Promise<Map<string, { dtype: string; bytes: Buffer }>> {
  const file = await openSafetensors(path);
  const entries = await Promise.all(
    [...file.tensors].map(
      async ([name, { dtype }]) => [name, { dtype, bytes: Buffer.from(await file.read(name)) }] as const,
    ),
  );
  await file.close();
  return new Map(entries);
}

/** A copy whose tensors are stored in 16 bits (rounded by the tests' own rule), and what they are then. */
async function in16Bits(model: string, format: "bf16" | "f16", change: (name: string) => boolean = () => true) {
  const values = new Map<string, Float64Array>();
  const file = await openSafetensors(join(model, "model.safetensors"));
  const originals = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) originals.set(name, await file.readF32(name));
  await file.close();
  const copy = withWeights(folder, model, (header) => {
    const pieces: Buffer[] = [];
    let end = 0;
    for (const [name, original] of originals) {
      const entry = header[name];
      if (entry === undefined) continue;
      const own = change(name) ? stored(format, entry.shape, original) : stored("f32", entry.shape, original);
      const width = change(name) ? 2 : 4;
      const bytes = Buffer.from(own.array.data.buffer).subarray(0, width * original.length);
      values.set(name, own.values);
      Object.assign(entry, {
        dtype: change(name) ? format.toUpperCase() : "F32",
        data_offsets: [end, end + bytes.length],
      });
      pieces.push(bytes);
      end += bytes.length;
    }
    return { data: Buffer.concat(pieces) };
  });
  return { copy, values };
}

describe("16-bit weights", () => {
  it.each([
    ["bf16", llama],
    ["f16", llama],
    ["bf16", gpt2],
  ] as const)("%s of %s are loaded as they are stored, and saved byte by byte", async (format, model) => {
    const { copy, values } = await in16Bits(model, format);
    const loaded = await Model.load(device, copy);
    expect(loaded.weights.layout.format).toBe(format);
    expect(loaded.numbers).toBe(format);
    for (const { name, data } of await loaded.readTensors(loaded.weights)) {
      expect(Float64Array.from(data), name).toEqual(values.get(name));
    }
    const into = freshPath(folder, "saved");
    await loaded.save(into);
    loaded.free();
    const [before, after] = [
      await bytesOf(join(copy, "model.safetensors")),
      await bytesOf(join(into, "model.safetensors")),
    ];
    expect(after).toEqual(before);
  });

  it("a trained copy keeps the same numbers as f32, rounded through the dtype that is asked for", async () => {
    const { copy, values } = await in16Bits(llama, "bf16");
    const master = await Model.load(device, copy, { storage: "f32" });
    expect(master.weights.layout.format).toBe("f32");
    expect(master.numbers).toBe("bf16");
    for (const { name, data } of await master.readTensors(master.weights)) {
      expect(Float64Array.from(data), name).toEqual(values.get(name));
    }
    master.free();
    const rounded = await Model.load(device, llama, { dtype: "bf16", storage: "f32" });
    for (const { name, shape, data } of await rounded.readTensors(rounded.weights)) {
      if (shape.length > 1) expect(Float64Array.from(data), name).toEqual(values.get(name));
    }
    rounded.free();
  });

  it("files that mix dtypes are loaded as f32", async () => {
    const { copy, values } = await in16Bits(llama, "f16", (name) => name.includes("mlp"));
    const loaded = await Model.load(device, copy);
    expect(loaded.weights.layout.format).toBe("f32");
    for (const { name, data } of await loaded.readTensors(loaded.weights)) {
      expect(Float64Array.from(data), name).toEqual(values.get(name));
    }
    loaded.free();
  });

  it("parts of odd sizes share words with their neighbours and come through", async () => {
    // gate and up: 23 x 15 numbers each, so the second starts in the middle of a word.
    const odd = await randomModel(
      folder,
      llamaConfig({
        hidden_size: 15,
        intermediate_size: 23,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 6,
        vocab_size: 7,
      }),
      3,
    );
    const { copy, values } = await in16Bits(odd, "bf16");
    const loaded = await Model.load(device, copy);
    for (const { name, data } of await loaded.readTensors(loaded.weights)) {
      expect(Float64Array.from(data), name).toEqual(values.get(name));
    }
    loaded.free();
  });

  it("config.json says what the weights are stored as, and else stays as it was", async () => {
    const loaded = await Model.load(device, llama);
    for (const [dtype, name] of [
      ["bf16", "bfloat16"],
      ["f16", "float16"],
      ["f32", "float32"],
    ] as const) {
      const into = freshPath(folder, "saved");
      await loaded.save(into, { dtype });
      const [before, after] = [llama, into].map((path) => JSON.parse(readFileSync(join(path, "config.json"), "utf8")));
      expect(after).toEqual({ ...before, torch_dtype: name });
    }
    loaded.free();
  });

  it("a number that f16 cannot hold is refused with its name, on the way in and on the way out", async () => {
    const large = withWeights(folder, llama, (_, data) => {
      data.writeFloatLE(70000, 0);
      return undefined;
    });
    await expect(Model.load(device, large, { dtype: "f16" })).rejects.toThrow(
      /tensor "[\w.]+" holds 70000 \(element 0\), too large for float16; load it as bfloat16 or float32/,
    );
    const loaded = await Model.load(device, large);
    const saving = loaded.save(freshPath(folder, "saved"), { dtype: "f16" });
    await expect(saving).rejects.toThrow(NumericError);
    await expect(saving).rejects.toThrow(/cannot be saved as float16: its "[\w.]+" holds 70000, which is too large/);
    loaded.free();
  });
});

/** A fixture saved in shards of at most this many bytes. */
async function sharded(model: string, maxShardBytes: number, into = freshPath(folder, "sharded")): Promise<string> {
  const loaded = await Model.load(device, model);
  await loaded.save(into, { maxShardBytes });
  loaded.free();
  return into;
}

interface Index {
  metadata: { total_size: number };
  weight_map: Record<string, string>;
}
const readIndex = (path: string) =>
  JSON.parse(readFileSync(join(path, "model.safetensors.index.json"), "utf8")) as Index;
const shardNames = (path: string) => readdirSync(path).filter((name) => name.startsWith("model"));

describe("shards", () => {
  it("are named and indexed as Hugging Face's, hold every tensor once, and give the same weights", async () => {
    const into = await sharded(llama, 30_000);
    const index = readIndex(into);
    const names = shardNames(into).filter((name) => name.endsWith(".safetensors"));
    const count = names.length;
    expect(count).toBeGreaterThan(2);
    expect(names).toEqual(
      names.map((_, i) => `model-${String(i + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.safetensors`),
    );
    expect(Object.keys(index.weight_map)).toEqual(Object.keys(index.weight_map).sort());
    const whole = await bytesOf(join(llama, "model.safetensors"));
    expect(index.metadata.total_size).toBe([...whole.values()].reduce((sum, { bytes }) => sum + bytes.length, 0));
    const found = new Map<string, { dtype: string; bytes: Buffer }>();
    for (const name of names) {
      const tensors = await bytesOf(join(into, name));
      const size = [...tensors.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
      if (tensors.size > 1) expect(size).toBeLessThanOrEqual(30_000);
      for (const [tensor, content] of tensors) {
        expect(index.weight_map[tensor]).toBe(name);
        found.set(tensor, content);
      }
    }
    expect(new Map([...found].sort())).toEqual(new Map([...whole].sort()));
    expect(await valuesOf(into)).toEqual(await valuesOf(llama));
  });

  it("replace a single file and the other way round, leaving nothing of the other kind", async () => {
    const into = await sharded(llama, 30_000, copyOfModel(folder, llama));
    expect(existsSync(join(into, "model.safetensors"))).toBe(false);
    const many = shardNames(into).length;
    await sharded(into, 60_000, into);
    expect(shardNames(into).length).toBeLessThan(many);
    await sharded(into, 5e9, into);
    expect(shardNames(into)).toEqual(["model.safetensors"]);
    expect(await valuesOf(into)).toEqual(await valuesOf(llama));
  });

  it("a save that ends between two shards leaves no index that would mix old and new", async () => {
    const into = await sharded(llama, 30_000);
    const model = await Model.load(device, into);
    const write = platform.writeFileAtomic.bind(platform);
    let shards = 0;
    const broken = vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
      if (path.endsWith(".safetensors") && ++shards === 2) throw new Error("the power went");
      await write(path, chunks);
    });
    await expect(model.save(into, { maxShardBytes: 30_000 })).rejects.toThrow("the power went");
    broken.mockRestore();
    model.free();
    await expect(Model.load(device, into)).rejects.toThrow(
      /has no model\.safetensors: it holds shards without model\.safetensors\.index\.json, so a download or a save was/,
    );
  });

  /** A sharded copy whose index went through `change`, which may change files too. */
  async function damaged(change: (index: Index, path: string) => unknown): Promise<string> {
    const into = await sharded(llama, 30_000);
    const index = readIndex(into);
    const text = change(index, into);
    writeFileSync(join(into, "model.safetensors.index.json"), typeof text === "string" ? text : JSON.stringify(index));
    return into;
  }
  const first = ({ weight_map }: Index) => Object.entries(weight_map)[0] ?? ["", ""];

  it.each<[string, (index: Index, path: string) => unknown, RegExp]>([
    [
      "a shard that is missing",
      (_, path) => rmSync(join(path, shardNames(path)[0] ?? "")),
      /index\.json finds tensor "[\w.]+" in model-00001-of-\d+\.safetensors, but that shard is missing; download it again/,
    ],
    [
      "a tensor that no shard has",
      (index) => {
        index.weight_map["model.layers.9.extra.weight"] = first(index)[1];
      },
      /finds tensor "model\.layers\.9\.extra\.weight" in model-\d+-of-\d+\.safetensors, but no shard has it/,
    ],
    [
      "a tensor that is in another shard",
      (index) => {
        const [name, own] = first(index);
        index.weight_map[name] = Object.values(index.weight_map).find((file) => file !== own) ?? "";
      },
      /but it is in model-\d+-of-\d+\.safetensors/,
    ],
    ["no weight_map", () => "{}", /"weight_map" is missing or is no object/],
    ["a list", () => "[]", /does not hold a JSON object/],
    ["no JSON", () => "{", /index\.json is not valid JSON/],
    [
      "a path out of the folder",
      (index) => {
        index.weight_map[first(index)[0]] = "../model.safetensors";
      },
      /is mapped to "\.\.\/model\.safetensors", not to the name of a \.safetensors file beside it/,
    ],
    [
      "a shard that was cut",
      (_, path) => {
        const shard = join(path, shardNames(path)[0] ?? "");
        writeFileSync(shard, readFileSync(shard).subarray(0, -100));
      },
      /model-00001-of-\d+\.safetensors is truncated/,
    ],
  ])("%s in the index is named", async (_, change, message) => {
    const before = device.totalBytes;
    const path = await damaged(change);
    const loading = Model.load(device, path);
    await expect(loading).rejects.toThrow(ModelFormatError);
    await expect(loading).rejects.toThrow(message);
    expect(device.totalBytes).toBe(before);
  });

  it("a tensor in two shards is named with both", async () => {
    const path = await damaged(() => undefined);
    const [one = "", two = ""] = shardNames(path).filter((name) => name.endsWith(".safetensors"));
    const [[name = "", content] = []] = await bytesOf(join(path, one));
    const others = await bytesOf(join(path, two));
    const file = await openSafetensors(join(path, two));
    const tensors = await Promise.all(
      [...file.tensors].map(async ([own, { shape }]) => ({ name: own, shape, data: await file.readF32(own) })),
    );
    await file.close();
    expect(others.has(name)).toBe(false);
    const data = new Float32Array((content?.bytes.length ?? 0) / 4);
    await writeSafetensors(join(path, two), [...tensors, { name, shape: [data.length], data }]);
    await expect(Model.load(device, path)).rejects.toThrow(
      new RegExp(`Tensor "${name}" is both in .*${one} and in .*${two}`),
    );
  });

  it("whole numbers are no weights", async () => {
    const ids = withWeights(folder, llama, (header) => {
      const entry = header["lm_head.weight"];
      if (entry) entry.dtype = "I32";
      return undefined;
    });
    await expect(Model.load(device, ids)).rejects.toThrow(
      /"lm_head\.weight" is stored as I32, but only F32, F16, BF16/,
    );
  });
});
