/**
 * Generation with the cache against the model in float64 without one; what a sequence depends on and what not; how
 * sequences end; what is refused.
 */
import { afterAll, describe, expect, it, vi } from "vitest";
import { planningDevice } from "../../../../src/engine/gpu/memory-plan.ts";
import { type GenerateOptions, Generator } from "../../../../src/engine/model/generate/generate.ts";
import { Passes } from "../../../../src/engine/model/generate/passes.ts";
import { Model } from "../../../../src/engine/model/model.ts";
import { Random } from "../../../../src/engine/random.ts";
import { ConfigError, NumericError } from "../../../../src/errors.ts";
import { nextTokens } from "../../../../src/kernels/float64/next-token.ts";
import { sharedDevice, withLimits } from "../../../helpers/device.ts";
import { exactGreedy, float64Fixture, loadModel } from "../../../helpers/fixtures.ts";
import { llama as llamaFolder, temporaryFolder, withConfig } from "../../../helpers/folders.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const models = { llama: await loadModel(device, "llama", "policy"), gpt2: await loadModel(device, "gpt2", "policy") };
const { llama } = models;
afterAll(() => {
  for (const model of Object.values(models)) model.free();
});

const greedy: GenerateOptions = { maxNewTokens: 10, temperature: 0, topK: 0, topP: 1, seed: 1, eosTokenIds: [] };
/** Drawn on the device; and by the host, which looks for the likeliest tokens. */
const sampled: GenerateOptions = { ...greedy, temperature: 1 };
const byHost: GenerateOptions = { ...sampled, topK: 60, topP: 0.95 };

function randomPrompts(count: number, seed: number, longest = 12): number[][] {
  const random = new Random(seed);
  return Array.from({ length: count }, () =>
    Array.from({ length: 1 + random.below(longest) }, () => 3 + random.below(90)),
  );
}

/** Generates with a generator of its own. */
async function generate(
  prompts: number[][],
  options: Partial<GenerateOptions>,
  { model = llama, maxBatch = 64, maxLength = 60, startLength = 256 } = {},
) {
  const generator = new Generator(model, { maxBatch, maxLength, startLength });
  try {
    return await generator.generate(prompts, { ...greedy, ...options });
  } finally {
    generator.free();
  }
}

describe("tokens", () => {
  it.each(["llama", "gpt2"] as const)(
    "%s: greedy continuations of prompts of many lengths equal float64",
    async (name) => {
      const model = models[name];
      const exact = float64Fixture(name, "policy");
      const prompts = randomPrompts(11, 3);
      const results = await generate(prompts, {}, { model, maxLength: 30 });
      expect(results.map(({ ids }) => ids)).toEqual(
        prompts.map((prompt) => exactGreedy(exact, prompt, 10, model.config.vocabSize)),
      );
    },
  );

  // One sequence takes a tile of its own in every matmul, and few take one of four rows.
  it.each([1, 3])("greedy continuations equal float64 with %i side by side", async (maxBatch) => {
    for (const name of ["llama", "gpt2"] as const) {
      const model = models[name];
      const prompts = randomPrompts(3, 21);
      const results = await generate(prompts, {}, { model, maxBatch, maxLength: 30 });
      expect(results.map(({ ids }) => ids)).toEqual(
        prompts.map((prompt) => exactGreedy(float64Fixture(name, "policy"), prompt, 10, model.config.vocabSize)),
      );
    }
  });

  it("more prompt tokens than a prefill pass holds, prompts split between passes among them", async () => {
    const random = new Random(4);
    const prompts = Array.from({ length: 24 }, () => Array.from({ length: 90 }, () => 3 + random.below(90)));
    // 1024 rows end within the twelfth prompt, 2048 within the twenty-third.
    const results = await generate(prompts, { maxNewTokens: 4 }, { maxLength: 100 });
    const exact = float64Fixture("llama", "policy");
    for (const place of [0, 10, 11, 12, 22, 23]) {
      expect(results[place]?.ids, `prompt ${place}`).toEqual(exactGreedy(exact, prompts[place] ?? [], 4, 120));
    }
  });

  it.each(["llama", "gpt2"] as const)("%s: drawn continuations equal the float64 twin's draws", async (name) => {
    const model = models[name];
    const exact = float64Fixture(name, "policy");
    const prompts = randomPrompts(5, 17);
    const options = { ...sampled, temperature: Math.fround(0.8), seed: 2 ** 40 + 3, maxNewTokens: 6 };
    const results = await generate(prompts, options, { model, maxLength: 30, maxBatch: 3 });
    const wanted = prompts.map((prompt, index) => {
      const random = new Random(options.seed, index);
      const key = [random.uint32(), random.uint32()] as const;
      const ids = [...prompt];
      while (ids.length < prompt.length + options.maxNewTokens) {
        const logits = exact.logits(ids).subarray(-model.config.vocabSize);
        const draw = { key, position: ids.length, temperature: options.temperature };
        ids.push(nextTokens(logits, [draw])[0] ?? -1);
      }
      return ids.slice(prompt.length);
    });
    expect(results.map(({ ids }) => ids)).toEqual(wanted);
  });

  it("samples the first token with the model's probabilities", async () => {
    const prompt = [5, 9, 40];
    const count = 2048;
    const results = await generate(new Array(count).fill(prompt), { ...sampled, maxNewTokens: 1 }, { maxLength: 8 });
    const logits = float64Fixture("llama", "policy").logits(prompt).subarray(-120);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    // Tokens by falling probability, in ten groups of about a tenth each.
    const groups = Array.from({ length: 10 }, () => ({ wanted: 0, found: 0 }));
    let below = 0;
    for (const [token, logit] of [...logits.entries()].sort(([, a], [, b]) => b - a)) {
      const probability = Math.exp(logit) / total;
      const group = groups[Math.min(9, Math.floor(10 * (below + probability / 2)))];
      below += probability;
      if (group === undefined) continue;
      group.wanted += count * probability;
      group.found += results.filter(({ ids }) => ids[0] === token).length;
    }
    const used = groups.filter(({ wanted }) => wanted > 0);
    const statistic = used.reduce((sum, { wanted, found }) => sum + (found - wanted) ** 2 / wanted, 0);
    expect(used.length).toBeGreaterThan(5);
    expect(statistic).toBeLessThan(27.9); // the 99.9% point of chi-square with 9 degrees of freedom
  });
});

describe("independence", () => {
  const prompts = randomPrompts(20, 7);

  it.each([
    ["the device", sampled],
    ["the host", byHost],
  ])("a sequence's tokens, drawn by %s, do not depend on those beside it", async (_, options) => {
    const whole = await generate(prompts, options);
    const others = randomPrompts(20, 8).map((prompt, i) => (i === 13 ? (prompts[13] ?? []) : prompt));
    const among = await generate(others, options);
    expect(among[13]).toEqual(whole[13]);
    expect(among[12]).not.toEqual(whole[12]);
    // Nor on those behind it.
    expect(await generate(prompts.slice(0, 5), options)).toEqual(whole.slice(0, 5));
    // Some of them, each in its place among all.
    const places = [13, 2, 19];
    const own = places.map((place) => prompts[place] ?? []);
    expect(await generate(own, { ...options, places })).toEqual(places.map((place) => whole[place]));
  });

  it("nor on how many are generated side by side, nor on the room kept for them", async () => {
    const whole = await generate(prompts, sampled);
    expect(await generate(prompts, sampled, { maxBatch: 8 })).toEqual(whole);
    expect(await generate(prompts, sampled, { maxBatch: 1, maxLength: 40 })).toEqual(whole);
  });

  it("nor on what the generator did before", async () => {
    const generator = new Generator(llama, { maxBatch: 8, maxLength: 60 });
    try {
      const first = await generator.generate(prompts, sampled);
      await generator.generate(randomPrompts(9, 10, 40), sampled);
      expect(await generator.generate(prompts, sampled)).toEqual(first);
    } finally {
      generator.free();
    }
  });

  it("the seed decides: the same one repeats, another differs, equal prompts draw differently", async () => {
    const twice = [prompts[0] ?? [], prompts[0] ?? []];
    for (const options of [sampled, byHost]) {
      const first = await generate(twice, options);
      expect(await generate(twice, options)).toEqual(first);
      expect(await generate(twice, { ...options, seed: 2 })).not.toEqual(first);
      expect(first[1]).not.toEqual(first[0]);
    }
    const [one, other] = await generate(twice, greedy);
    expect(other).toEqual(one);
  });

  it("the highest temperature that is a number, and none at all, draw and do not fail", async () => {
    for (const temperature of [Number.POSITIVE_INFINITY, Number.MIN_VALUE]) {
      const [result] = await generate([[5, 9]], { ...sampled, temperature });
      expect(result?.ids).toHaveLength(10);
    }
  });
});

describe("the end of a sequence", () => {
  const prompts = randomPrompts(6, 11);

  it("an eos token ends its sequence, is not part of it, and leaves the others as they were", async () => {
    const whole = await generate(prompts, sampled);
    const eos = whole[2]?.ids[4] ?? -1;
    const cut = await generate(prompts, { ...sampled, eosTokenIds: [eos] });
    expect(cut).toEqual(
      whole.map(({ ids }) => {
        const end = ids.indexOf(eos);
        return end < 0 ? { ids, finish: "length" } : { ids: ids.slice(0, end), finish: "eos" };
      }),
    );
    expect(cut[2]?.ids.length).toBeLessThanOrEqual(4);
    expect(cut.some(({ finish }) => finish === "length")).toBe(true);
  });

  it("does so too where the next pass is under way before the token is known", async () => {
    const whole = await generate(prompts, {});
    // Each sequence ends somewhere else, and several at once.
    const ends = new Set(whole.map(({ ids }, i) => ids[2 + (i % 4)] ?? -1));
    const cut = await generate(prompts, { eosTokenIds: [...ends] });
    expect(cut).toEqual(
      whole.map(({ ids, finish }) => {
        const end = ids.findIndex((id) => ends.has(id));
        return end < 0 ? { ids, finish } : { ids: ids.slice(0, end), finish: "eos" };
      }),
    );
    expect(new Set(cut.map(({ ids }) => ids.length)).size).toBeGreaterThan(1);
  });

  it("may come first, and is the model's own unless others are given", async () => {
    const prompt = prompts[0] ?? [];
    const [first = -1] = (await generate([prompt], {}))[0]?.ids ?? [];
    expect(await generate([prompt], { eosTokenIds: [first] })).toEqual([{ ids: [], finish: "eos" }]);
    const { eosTokenIds: _, ...own } = greedy;
    const model = await Model.load(device, withConfig(folder, llamaFolder, { eos_token_id: [2, first] }));
    const generator = new Generator(model, { maxLength: 40 });
    expect(await generator.generate([prompt], own)).toEqual([{ ids: [], finish: "eos" }]);
    generator.free();
    model.free();
  });

  it("comes at maxNewTokens, or when prompt and continuation fill maxLength", async () => {
    const prompt = [5, 6, 7, 8];
    const [long] = await generate([prompt], { maxNewTokens: 20 });
    for (const maxNewTokens of [1, 2, 7]) {
      expect(await generate([prompt], { maxNewTokens })).toEqual([
        { ids: long?.ids.slice(0, maxNewTokens), finish: "length" },
      ]);
    }
    expect(await generate([prompt], { maxNewTokens: 20 }, { maxLength: 9 })).toEqual([
      { ids: long?.ids.slice(0, 5), finish: "length" },
    ]);
    const full = await generate([new Array(63).fill(5)], { maxNewTokens: 20 }, { model: models.gpt2, maxLength: 64 });
    expect(full[0]?.ids).toHaveLength(1);
  });
});

describe("onToken", () => {
  it("is told each new token with its prompt, and ends a sequence behind the token that it stops at", async () => {
    const prompts = randomPrompts(11, 13);
    const whole = await generate(prompts, {}, { maxBatch: 8 });
    const told = prompts.map((): number[] => []);
    const cut = await generate(
      prompts,
      {
        onToken: (index, ids) => {
          told[index]?.push(ids.at(-1) ?? -1);
          return index === 9 && ids.length === 3 ? "stop" : undefined;
        },
      },
      { maxBatch: 8 },
    );
    expect(cut).toEqual(
      whole.map(({ ids, finish }, i) => (i === 9 ? { ids: ids.slice(0, 3), finish: "stop" } : { ids, finish })),
    );
    expect(told).toEqual(cut.map(({ ids }) => ids));
  });
});

describe("a kept prefix", () => {
  it("gives the continuation that the whole prompt gives, of prompts longer, shorter, other and the same", async () => {
    const generator = new Generator(llama, { maxBatch: 1, maxLength: 60 });
    const exact = float64Fixture("llama", "policy");
    try {
      let prompt = [5, 9, 40];
      const turns = [
        (ids: number[]) => [...prompt, ...ids, 7, 8],
        () => [5, 9, 41, 6],
        () => prompt,
        () => [5],
        () => [6, 7],
      ];
      for (const next of [...turns, () => prompt]) {
        const [result] = await generator.generate([prompt], { ...greedy, reusePrefix: true });
        expect(result?.ids).toEqual(exactGreedy(exact, prompt, 10, llama.config.vocabSize));
        prompt = next(result?.ids ?? []);
      }
    } finally {
      generator.free();
    }
  });
});

describe.each(["lfm2", "qwen3_5"] as const)("states of %s", (name) => {
  it("go on where a prompt begins with all that was run, its end token too, and start again elsewhere", async () => {
    const model = await loadModel(device, name, "policy");
    const generator = new Generator(model, { maxBatch: 1, maxLength: 60 });
    const exact = float64Fixture(name, "policy");
    const likeliest = (prompt: number[], count: number) => exactGreedy(exact, prompt, count, model.config.vocabSize);
    const passes = vi.spyOn(Passes.prototype, "tokens");
    const first = [5, 9, 40];
    const reply = likeliest(first, 5);
    // The fourth token ends the first reply, when the pass behind it has been submitted.
    const [end = 0] = reply.slice(3);
    const answer = reply.slice(0, reply.indexOf(end));
    const prompts = [first, [...first, ...answer, end, 7, 8], [...first, 7], [...first, 7]];
    try {
      for (const [turn, prompt] of prompts.entries()) {
        passes.mockClear();
        const eosTokenIds = turn === 0 ? [end] : [];
        const options = { ...greedy, maxNewTokens: 5, eosTokenIds, reusePrefix: true };
        const [result] = await generator.generate([prompt], options);
        expect(result?.ids).toEqual(turn === 0 ? answer : likeliest(prompt, 5));
        // Only the second turn goes on: the state of the others' prompts is gone.
        expect(passes.mock.calls[0]?.[0]).toHaveLength(turn === 1 ? 2 : prompt.length);
      }
    } finally {
      passes.mockRestore();
      generator.free();
      model.free();
    }
  });
});

it("the repetition penalty counts prompt and continuation", async () => {
  const [result] = await generate([[5, 9, 40]], { repetitionPenalty: 1e6 });
  const ids = [5, 9, 40, ...(result?.ids ?? [])];
  // Nothing that occurred comes again while another token has a positive logit.
  expect(new Set(ids).size).toBe(13);
});

it("calls at the same time take turns: each has the tokens that it has alone", async () => {
  const generator = new Generator(llama, { maxBatch: 2, maxLength: 60 });
  const prompts = randomPrompts(5, 21);
  try {
    const together = await Promise.all([
      generator.generate(prompts, sampled),
      generator.generate([[7]], greedy),
      generator.generate([[5], []], greedy).catch((error: unknown) => error),
      generator.generate(prompts.toReversed(), sampled),
    ]);
    expect(together).toEqual([
      await generator.generate(prompts, sampled),
      await generator.generate([[7]], greedy),
      new ConfigError("Prompt 2 has no tokens; give it one or more."),
      await generator.generate(prompts.toReversed(), sampled),
    ]);
  } finally {
    generator.free();
  }
});

it("a generator that was freed says so, before and during its work", async () => {
  const generator = new Generator(llama, { maxBatch: 2, maxLength: 60 });
  const first = generator.generate([[7]], {
    ...greedy,
    onToken: () => {
      generator.free();
      return undefined;
    },
  });
  for (const failing of [first, generator.generate([[7]], greedy)]) {
    const error = await failing.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toMatch(/^The device memory "tokens" was freed and used again: free a model, /);
  }
  await device.idle();
});

it("a generator that was freed while a pass was under way says so too", async () => {
  const generator = new Generator(llama, { maxBatch: 1, maxLength: 60 });
  const failing = generator.generate([[7]], {
    ...greedy,
    onToken: (_, ids) => {
      if (ids.length === 4) generator.free();
      return undefined;
    },
  });
  await expect(failing).rejects.toThrow(/ was freed and used again: /);
  await expect(failing).rejects.toThrow(ConfigError);
  await device.idle();
});

describe("refusals", () => {
  it.each([
    ["an empty prompt", [[5], []], {}, "Prompt 2 has no tokens; give it one or more."],
    ["a prompt without room", [new Array(60).fill(5)], {}, /^Prompt 1 has 60 tokens, which leaves no room .* 60\.$/],
    ["a token outside", [[5], [6], [120]], {}, "Prompt 3 holds token 120, outside the vocabulary of 120."],
    ["a token that is no whole number", [[5.5]], {}, "Prompt 1 holds token 5.5, outside the vocabulary of 120."],
    ["no new tokens", [[5]], { maxNewTokens: 0 }, "maxNewTokens is 0; it must be a whole number of at least 1."],
    ["half a new token", [[5]], { maxNewTokens: 1.5 }, /^maxNewTokens is 1.5; /],
    ["a temperature below 0", [[5]], { temperature: -1 }, /^temperature is -1; /],
    ["a temperature that is no number", [[5]], { temperature: Number.NaN }, /^temperature is NaN; /],
    ["half a token", [[5]], { topK: 1.5 }, /^topK is 1.5; /],
    ["no probability", [[5]], { topP: 0 }, /^topP is 0; /],
    ["too much of it", [[5]], { topP: 1.1 }, /^topP is 1.1; /],
    ["a negative share", [[5]], { minP: -0.1 }, "minP is -0.1; it must be a number from 0 to 1."],
    ["no penalty", [[5]], { repetitionPenalty: 0 }, "repetitionPenalty is 0; it must be a number above 0."],
    ["a seed that is none", [[5]], { seed: -1 }, /random seed is -1/],
  ] as [string, number[][], Partial<GenerateOptions>, string | RegExp][])(
    "%s",
    async (_, prompts, options, message) => {
      const failed = generate(prompts, options);
      await expect(failed).rejects.toThrow(message);
      await expect(failed).rejects.toThrow(ConfigError);
    },
  );

  it.each([0, -1, 1.5, Number.NaN])("a length of %d", (maxLength) => {
    const before = device.memory();
    const making = () => new Generator(llama, { maxBatch: 1, maxLength });
    expect(making).toThrow(new ConfigError(`maxLength is ${maxLength}; it must be a whole number of at least 1.`));
    expect(device.memory()).toEqual(before);
  });

  it("before anything is generated, whatever the round that the prompt is in", async () => {
    const before = device.memory();
    const generator = new Generator(llama, { maxBatch: 8, maxLength: 20 });
    const prompts = [...new Array(10).fill([5]), []];
    const allocated = device.memory();
    await expect(generator.generate(prompts, greedy)).rejects.toThrow("Prompt 11 has no tokens");
    expect(device.memory()).toEqual(allocated); // no program was recorded
    generator.free();
    expect(device.memory()).toEqual(before);
  });

  it("more room than the model's context, and no sequences at all", () => {
    expect(() => new Generator(llama, { maxLength: 257 })).toThrow(/257 tokens, but the model's context is 256/);
    expect(() => new Generator(llama, { maxLength: 10, maxBatch: 0 })).toThrow(ConfigError);
  });

  it("logits that are not finite, by the prompt", async () => {
    const broken = await loadModel(device, "llama", "policy");
    device.upload({ ...broken.parameter("finalNorm.weight"), shape: [1] }, Float32Array.of(Number.NaN));
    try {
      const failed = generate([[5, 6]], {}, { model: broken });
      await expect(failed).rejects.toThrow(NumericError);
      await expect(failed).rejects.toThrow(/^Prompt 1: the logits after 2 tokens are not finite/);
    } finally {
      broken.free();
    }
  });
});

describe("memory", () => {
  it("a generator that cannot be made leaves nothing behind", async () => {
    const before = device.memory();
    await withLimits({ maxBufferSize: 200_000 }, async () => {
      expect(() => new Generator(llama, { maxBatch: 8, maxLength: 100 })).toThrow(/^"\w+" needs/);
    });
    expect(device.memory()).toEqual(before);
  });

  it("the cache holds as many sequences as were asked for, and says what fits where one binding cannot", async () => {
    const cacheBytes = (maxBatch: number) => {
      const generator = new Generator(llama, { maxBatch, maxLength: 64 });
      const bytes = generator.cacheBytes;
      generator.free();
      return bytes;
    };
    // Keys and values of 2 layers, 16 numbers a token.
    const one = 2 * 2 * 64 * 16 * 4;
    expect(cacheBytes(8)).toEqual({ now: 8 * one, most: 8 * one });
    expect(cacheBytes(1)).toEqual({ now: one, most: one });
    await withLimits({ maxStorageBufferBindingSize: 3 * 64 * 16 * 4 }, async () => {
      expect(Generator.mostSideBySide(llama, 64)).toBe(3);
      expect(() => new Generator(llama, { maxBatch: 4, maxLength: 64 })).toThrow(
        /^The keys of 4 sequences of 64 tokens do not fit one binding .*; take 3 or fewer, or shorter ones/,
      );
      expect(() => new Generator(llama, { maxBatch: 1, maxLength: 250 })).toThrow(
        /; take shorter sequences \(max_length/,
      );
    });
  });

  it("the cache doubles when it is full, and what it holds stays: the same tokens as with all the room at first", async () => {
    const prompts = randomPrompts(5, 31, 20);
    for (const name of ["llama", "gpt2"] as const) {
      for (const options of [greedy, sampled, byHost].map((one) => ({ ...one, maxNewTokens: 30 }))) {
        const full = await generate(prompts, options, { model: models[name], maxBatch: 5, startLength: 60 });
        for (const startLength of [1, 7]) {
          const grown = await generate(prompts, options, { model: models[name], maxBatch: 5, startLength });
          expect(grown, `${name}, ${startLength} tokens at first`).toEqual(full);
        }
      }
    }
  });

  it("the cache is as long as its sequences ask for, to the next doubling, and at most as was allowed", async () => {
    const generator = new Generator(llama, { maxBatch: 2, maxLength: 50, startLength: 8 });
    const token = 2 * 2 * 2 * 16 * 4;
    const length = () => generator.cacheBytes.now / token;
    try {
      expect(generator.cacheBytes).toEqual({ now: 8 * token, most: 50 * token });
      for (const [prompt, held] of [
        [4, 8],
        [9, 16],
        [4, 16],
        [33, 50],
      ] as const) {
        await generator.generate([new Array(prompt).fill(5)], { ...greedy, maxNewTokens: 4 });
        expect(length()).toBe(held);
      }
    } finally {
      generator.free();
    }
  });

  it("a plan counts the cache at its largest, and the copies by which it grows", async () => {
    const size = { maxBatch: 3, maxLength: 48, startLength: 6 };
    const counting = planningDevice(device);
    const model = await loadModel(counting, "llama", "policy");
    const [loaded, before, { uniforms }] = [counting.totalBytes, device.totalBytes, device.memory()];
    const planned = new Generator(model, size);
    const generator = new Generator(llama, size);
    try {
      await generator.generate([new Array(40).fill(5)], greedy);
      expect(generator.cacheBytes.now).toBe(generator.cacheBytes.most);
      const used = device.memory();
      // Programs are not part of a plan, and the model's rotary angles stay from before.
      expect(counting.totalBytes - loaded).toBe(device.totalBytes - before - (used.uniforms ?? 0) + (uniforms ?? 0));
      expect(counting.peakBytes).toBeGreaterThan(counting.totalBytes);
    } finally {
      generator.free();
      planned.free();
    }
  });

  it("free gives back the cache and all scratch", async () => {
    await generate([[5]], {}); // the model's rotary angles stay
    const before = device.memory();
    await generate(randomPrompts(3, 12), {});
    expect(device.memory()).toEqual(before);
  });
});
