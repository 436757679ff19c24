/**
 * Model folders in and out: what Hugging Face wrote comes back under the same names, in the same shapes, bit by bit,
 * and a save that does not come to its end leaves nothing that looks like a model.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { Device } from "../../../src/engine/gpu/device.ts";
import { elementCount } from "../../../src/engine/gpu/tensor.ts";
import { readModelConfig } from "../../../src/engine/model/config/folder.ts";
import { type LoadOptions, Model, type SaveOptions } from "../../../src/engine/model/model.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { ConfigError, ModelFormatError } from "../../../src/errors.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { FAMILY_FIXTURES, fixtureFolder } from "../../helpers/fixtures.ts";
import {
  copyOfModel,
  entryOf,
  freshPath,
  gpt2,
  llama,
  stories,
  temporaryFolder,
  type WeightsHeader,
  withConfig,
  withWeights,
} from "../../helpers/folders.ts";
import { FAMILY_CONFIGS, randomModel } from "../../helpers/models.ts";

const folder = temporaryFolder();
let device: Device;
beforeAll(async () => {
  device = await sharedDevice();
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Shape and bytes (their hash) of each tensor, the metadata beside them. */
function contentOf(model: string): { tensors: Map<string, { shape: number[]; sha256: string }>; metadata: unknown } {
  const file = readFileSync(join(model, "model.safetensors"));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata, ...header } = JSON.parse(file.toString("utf8", 8, start)) as WeightsHeader;
  const entries = Object.entries(header).sort(([a], [b]) => (a < b ? -1 : 1));
  const tensors = entries.map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [begin, end],
      },
    ]) => {
      expect(dtype).toBe("F32");
      const bytes = file.subarray(start + begin, start + end);
      return [name, { shape, sha256: createHash("sha256").update(bytes).digest("hex") }] as const;
    },
  );
  return { tensors: new Map(tensors), metadata };
}

/** Loads a folder and saves it into another one. */
async function saved(model: string, into = freshPath(folder, "saved")): Promise<string> {
  const loaded = await Model.load(device, model);
  try {
    await loaded.save(into);
  } finally {
    loaded.free();
  }
  return into;
}

/** A copy under other tensor names; undefined drops a tensor. */
function renamed(model: string, rename: (name: string) => string): string {
  return withWeights(folder, model, (header) => ({
    header: JSON.stringify(Object.fromEntries(Object.entries(header).map(([name, entry]) => [rename(name), entry]))),
  }));
}

/** A copy with further tensors behind its own, each of the given shape and full of 7. */
function withTensors(model: string, more: Readonly<Record<string, number[]>>): string {
  return withWeights(folder, model, (header, data) => {
    const pieces = [data];
    let end = data.length;
    for (const [name, shape] of Object.entries(more)) {
      const values = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(7);
      header[name] = { dtype: "F32", shape, data_offsets: [end, end + values.byteLength] };
      pieces.push(Buffer.from(values.buffer));
      end += values.byteLength;
    }
    return { data: Buffer.concat(pieces) };
  });
}

describe("load and save", () => {
  test.each<[string, () => string]>([
    ["llama with a head of its own", () => llama],
    ["llama with tied embeddings", () => stories],
    ["llama without the prefix", () => renamed(llama, (name) => name.replace(/^model\./, ""))],
    ["gpt2 with tied embeddings", () => gpt2],
    [
      "gpt2 without the prefix, as its first weight files are",
      () => renamed(gpt2, (name) => name.replace(/^transformer\./, "")),
    ],
    [
      "gpt2 with a head of its own",
      () => withConfig(folder, withTensors(gpt2, { "lm_head.weight": [96, 32] }), { tie_word_embeddings: false }),
    ],
    [
      "llama with biases",
      () =>
        withConfig(
          folder,
          withTensors(llama, {
            ...Object.fromEntries(
              [0, 1].flatMap((layer) => [
                [`model.layers.${layer}.self_attn.q_proj.bias`, [32]],
                [`model.layers.${layer}.self_attn.k_proj.bias`, [16]],
                [`model.layers.${layer}.self_attn.v_proj.bias`, [16]],
                [`model.layers.${layer}.self_attn.o_proj.bias`, [32]],
                [`model.layers.${layer}.mlp.gate_proj.bias`, [56]],
                [`model.layers.${layer}.mlp.up_proj.bias`, [56]],
                [`model.layers.${layer}.mlp.down_proj.bias`, [32]],
              ]),
            ),
          }),
          { attention_bias: true, mlp_bias: true },
        ),
    ],
    ...FAMILY_FIXTURES.map((name): [string, () => string] => [name, () => fixtureFolder(name, "policy")]),
  ])("%s: the same names, shapes and bytes", async (_, make) => {
    const model = make();
    const [before, after] = [contentOf(model), contentOf(await saved(model))];
    expect([...after.tensors.keys()]).toEqual([...before.tensors.keys()]);
    expect(after.tensors).toEqual(before.tensors);
    // Without it, transformers refuses the file.
    expect(after.metadata).toEqual({ format: "pt" });
  });

  test.each(Object.entries(FAMILY_CONFIGS))("%s: random weights come back bit by bit", async (_, config) => {
    const model = await randomModel(folder, config, 5);
    const [before, after] = [contentOf(model), contentOf(await saved(model))];
    expect(before.tensors.size).toBeGreaterThan(8);
    expect(after).toEqual(before);
  });

  test("numbers that arithmetic would change are kept: -0, the smallest and the largest", async () => {
    const odd = [-0, 2 ** -149, -(2 ** -130), 3.4028234663852886e38, 1 + 2 ** -23];
    const model = withWeights(folder, llama, (header, data) => {
      const [begin] = entryOf(header, "model.layers.1.self_attn.k_proj.weight").data_offsets;
      odd.forEach((value, i) => void data.writeFloatLE(value, begin + 4 * i));
      return undefined;
    });
    expect(contentOf(await saved(model)).tensors).toEqual(contentOf(model).tensors);
  });

  test("tensors that hold no parameter are read over and not written", async () => {
    const masks = { "h.0.attn.bias": [1, 1, 64, 64], "h.1.attn.masked_bias": [1] };
    const plain = renamed(gpt2, (name) => name.replace(/^transformer\./, ""));
    const after = await saved(withTensors(plain, masks));
    expect(contentOf(after).tensors).toEqual(contentOf(plain).tensors);
  });

  test("a head of its own beside tied embeddings is ignored with a sentence, and not written; the same one is not worth one", async () => {
    const onWarning = vi.fn();
    const tied = withConfig(folder, llama, { tie_word_embeddings: true });
    const model = await Model.load(device, tied, { onWarning });
    expect(onWarning.mock.calls.flat()).toEqual([
      expect.stringMatching(
        /"lm_head\.weight" differs from "model\.embed_tokens\.weight", but config\.json ties the two: the head is ignored/,
      ),
    ]);
    const into = freshPath(folder, "saved");
    await model.save(into);
    expect([...contentOf(into).tensors.keys()]).not.toContain("lm_head.weight");
    model.free();

    const same = withWeights(folder, tied, (header, data) => {
      const bytesOf = (name: string) => data.subarray(...entryOf(header, name).data_offsets);
      bytesOf("model.embed_tokens.weight").copy(bytesOf("lm_head.weight"));
      return undefined;
    });
    (await Model.load(device, same, { onWarning })).free();
    expect(onWarning).toHaveBeenCalledTimes(1);
  });

  test("config and tokenizer files go along byte by byte, other files stay behind", async () => {
    const model = copyOfModel(folder, stories);
    const binary = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    writeFileSync(join(model, "tokenizer.model"), binary);
    writeFileSync(join(model, "chat_template.jinja"), "{{ messages }}\r\n");
    writeFileSync(join(model, "optimizer.pt"), "x");
    const after = await saved(model);
    const companions = [
      ...["config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model"],
      ...["tokenizer_config.json", "chat_template.jinja"],
    ];
    expect(readdirSync(after).sort()).toEqual([...companions, "model.safetensors"].sort());
    for (const name of companions) {
      expect(readFileSync(join(after, name)).equals(readFileSync(join(model, name))), name).toBe(true);
    }
  });

  test("weights are read back tensor by tensor, never all at once", async () => {
    const model = await Model.load(device, llama);
    const download = vi.spyOn(device, "downloadBytes");
    await model.save(freshPath(folder, "saved"));
    const sizes = [...model.layout.parts()].map(({ shape }) => [elementCount(shape)]);
    expect(download.mock.calls.map(([tensor]) => tensor.shape)).toEqual(sizes);
    model.free();
  });

  test("a model may be saved into the folder that it came from", async () => {
    const model = copyOfModel(folder, llama);
    const before = contentOf(model).tensors;
    await saved(model, model);
    expect(contentOf(model).tensors).toEqual(before);
    expect(readdirSync(model).sort()).toEqual(["config.json", "model.safetensors"]);
  });

  test("a copy keeps the weights of its moment", async () => {
    const model = await Model.load(device, llama);
    const copy = Model.copyOf(model, "reference weights");
    device.upload(model.parameter("finalNorm.weight"), new Float32Array(32).fill(7));
    const into = freshPath(folder, "copy");
    await copy.save(into);
    copy.free();
    model.free();
    expect(contentOf(into).tensors).toEqual(contentOf(llama).tensors);
  });

  test("device memory is given back: by free, and by a load that fails on the last tensor", async () => {
    const before = device.totalBytes;
    const broken = withWeights(folder, llama, (header, data) => {
      data.writeFloatLE(Number.POSITIVE_INFINITY, entryOf(header, "lm_head.weight").data_offsets[1] - 4);
      return undefined;
    });
    await expect(Model.load(device, broken)).rejects.toThrow('tensor "lm_head.weight" holds Infinity (element 3839)');
    expect(device.totalBytes).toBe(before);
    const model = await Model.load(device, llama);
    expect(device.memory().weights).toBeGreaterThanOrEqual(4 * model.layout.parameterCount);
    model.free();
    expect(device.totalBytes).toBe(before);
  });
});

test("a number format that is none, such as Hugging Face's name of one, is refused before any work", async () => {
  const device = await sharedDevice();
  const before = device.totalBytes;
  const into = freshPath(folder, "saved");
  for (const [option, value] of [
    ["dtype", "bfloat16"],
    ["storage", "int8"],
  ] as const) {
    await expect(Model.load(device, llama, { [option]: value } as LoadOptions)).rejects.toThrow(
      new ConfigError(`${option} is "${value}"; it must be f32 or f16 or bf16.`),
    );
  }
  expect(device.totalBytes).toBe(before);
  const model = await Model.load(device, llama);
  await expect(model.save(into, { dtype: "float32" } as unknown as SaveOptions)).rejects.toThrow(
    new ConfigError('dtype is "float32"; it must be f32 or f16 or bf16.'),
  );
  model.free();
  expect(existsSync(into)).toBe(false);
});

describe("end tokens", () => {
  const withGeneration = (content: string): string => {
    const model = withConfig(folder, llama, { eos_token_id: 2 });
    writeFileSync(join(model, "generation_config.json"), content);
    return model;
  };

  test.each([
    ["a list", { eos_token_id: [1, 2] }, [1, 2]],
    ["a number", { eos_token_id: 7 }, [7]],
    ["none: those of config.json", { temperature: 1 }, [2]],
    ["null: those of config.json", { eos_token_id: null }, [2]],
    ["an empty list: those of config.json", { eos_token_id: [] }, [2]],
  ])("are those of generation_config.json: %s", async (_, content, wanted) => {
    expect((await readModelConfig(withGeneration(JSON.stringify(content)))).eosTokenIds).toEqual(wanted);
  });

  test("of the bundled model: both of its generation_config.json", async () => {
    expect((await readModelConfig(stories)).eosTokenIds).toEqual([1, 2]);
  });

  test.each([
    ["a text", '{"eos_token_id": "</s>"}', ': "eos_token_id" is "</s>", not a token id or a list of token ids'],
    ["half a token", '{"eos_token_id": [2, 1.5]}', ': "eos_token_id" is [2,1.5], not a token id'],
    ["below 0", '{"eos_token_id": -1}', ': "eos_token_id" is -1, not a token id'],
    ["a list in a list", '{"eos_token_id": [[2]]}', ': "eos_token_id" is [[2]], not a token id'],
    ["no JSON", "{", " is not valid JSON: "],
    ["no object", "[]", " does not hold a JSON object."],
  ])("that are none are refused by file and key: %s", async (_, content, message) => {
    const model = withGeneration(content);
    const failing = readModelConfig(model);
    await expect(failing).rejects.toThrow(ModelFormatError);
    await expect(failing).rejects.toThrow(`${join(model, "generation_config.json")}${message}`);
  });
});

describe("the width of a head", () => {
  test("that does not come out whole is refused by the keys that config.json has", async () => {
    const llamaModel = withConfig(folder, llama, { hidden_size: 30, num_attention_heads: 4, head_dim: undefined });
    await expect(readModelConfig(llamaModel)).rejects.toThrow(
      `${join(llamaModel, "config.json")}: hidden_size 30 is not a multiple of num_attention_heads 4.`,
    );
    const gpt2Model = withConfig(folder, gpt2, { n_embd: 30, n_head: 4 });
    await expect(readModelConfig(gpt2Model)).rejects.toThrow("config.json: n_embd 30 is not a multiple of n_head 4.");
    // A width of its own need not share the hidden size out.
    const own = withConfig(folder, llama, { hidden_size: 30, num_attention_heads: 4, head_dim: 8 });
    expect((await readModelConfig(own)).headSize).toBe(8);
  });
});

describe("a save that does not come to its end", () => {
  /** Lets the weights' file through piece by piece, with a look at the folder between pieces. */
  function watchWeights(look: (piece: number) => void): void {
    const write = platform.writeFileAtomic.bind(platform);
    vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
      if (!path.endsWith("model.safetensors") || typeof chunks === "string") return write(path, chunks);
      return write(path, watched(chunks));
    });
    async function* watched(chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>) {
      let piece = 0;
      for await (const chunk of chunks) {
        look(piece++);
        yield chunk;
      }
    }
  }

  test("the weights have another name until they are whole", async () => {
    const into = freshPath(folder, "watched");
    const seen = new Set<string>();
    watchWeights(() => {
      for (const name of readdirSync(into)) seen.add(name.replace(/[0-9a-f]{12}/, "*"));
    });
    await saved(llama, into);
    expect([...seen].sort()).toEqual([".model.safetensors.*.tmp", "config.json"]);
    expect(readdirSync(into).sort()).toEqual(["config.json", "model.safetensors"]);
  });

  test("the disk full midway: no half file, and what is there is not taken for a model", async () => {
    const into = freshPath(folder, "full");
    watchWeights((piece) => {
      if (piece === 5) throw Object.assign(new Error("write"), { code: "ENOSPC" });
    });
    await expect(saved(llama, into)).rejects.toThrow(
      `Cannot write ${join(into, "model.safetensors")}: no space is left on the disk.`,
    );
    expect(readdirSync(into)).toEqual(["config.json"]);
    await expect(Model.load(device, into)).rejects.toThrow("has no model.safetensors: there are no weights to load");
  });

  test("over an earlier model: the earlier weights stay", async () => {
    const into = copyOfModel(folder, llama);
    const before = contentOf(into).tensors;
    watchWeights((piece) => {
      if (piece === 5) throw new Error("stopped");
    });
    await expect(saved(llama, into)).rejects.toThrow("stopped");
    vi.restoreAllMocks();
    expect(contentOf(into).tensors).toEqual(before);
    expect(readdirSync(into).sort()).toEqual(["config.json", "model.safetensors"]);
  });

  test("a folder in the place of the weights is refused by name", async () => {
    const into = freshPath(folder, "blocked");
    mkdirSync(join(into, "model.safetensors"), { recursive: true });
    await expect(saved(llama, into)).rejects.toThrow(`${join(into, "model.safetensors")}: it is a folder, not a file`);
    expect(readdirSync(into).sort()).toEqual(["config.json", "model.safetensors"]);
  });
});
