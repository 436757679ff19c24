/**
 * Attention on subgroup matrices, forward and backward, by all its tiles, with every mask: split operands within f32's
 * bounds, rounded ones within f16's. It runs where the device offers matrices, as `npm run test:matrix` makes one;
 * elsewhere they are emulated.
 */
import { describe, expect, it } from "vitest";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../src/kernels/attention.ts";
import type { ActivationFormat, Kernel } from "../../src/kernels/kernel.ts";
import type { AdapterFacts, MatrixFacts } from "../../src/kernels/wgsl.ts";
import { type AttentionBuild, checkBackward, checkPackedForward, runPackedForward } from "../helpers/attention.ts";
import { bits } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";

const device = await sharedDevice();
const { facts } = device;
const offered = facts.matrices !== undefined;

/** Causal rows over several tiles of keys, a prompt that three continue, and a short sequence that shares a tile. */
const PACKED = [
  { prompt: 37, completion: 23, branch: 21 },
  { prompt: 5, completion: 7, branch: 3 },
];
const LENGTHS = [43, 1, 12];
const KEYS = { headSize: 64, heads: 6, keyValueHeads: 2 };

const builds: readonly (AttentionBuild & { readonly operands: string })[] = ACTIVATION_FORMATS.flatMap((format) => [
  { facts, format, tile: "matrix16x16", operands: "split" },
  { facts, format, tile: "matrix16x16", products: "f16", operands: "rounded" },
]);

describe.runIf(offered).each(builds)("attention on matrices, $format, $operands operands", (build) => {
  it("forward equals float64: shared prompts, grouped heads, sliding windows", async () => {
    for (const [seed, window] of [Number.POSITIVE_INFINITY, 3, 20].entries()) {
      await checkPackedForward(build, KEYS, PACKED, { window, seed });
    }
    await checkPackedForward(build, { ...KEYS, heads: 1, keyValueHeads: 1 }, PACKED, { scale: 0.3 });
  });

  it("backward equals float64: grouped heads, sliding windows", async () => {
    for (const [seed, window] of [Number.POSITIVE_INFINITY, 3, 20].entries()) {
      await checkBackward(build, KEYS, LENGTHS, 1, seed, window);
    }
    await checkBackward(build, { ...KEYS, heads: 20, keyValueHeads: 1 }, [9, 4], 1, 4);
  });

  it("heads of 128 channels, there and back", async () => {
    const shape = { headSize: 128, heads: 2, keyValueHeads: 1 };
    await checkPackedForward(build, shape, PACKED);
    await checkBackward(build, shape, [21, 9], 1, 5);
  });

  it.runIf(build.format === "f32")("operands that are large or small", async () => {
    for (const sizes of [
      { q: 1e-6, k: 1e6, v: 1e7, dOut: 1e-9 },
      { q: 300, k: 0.003, v: 1e-8, dOut: 1e6 },
    ]) {
      await checkPackedForward(build, KEYS, PACKED, { sizes });
      await checkBackward(build, KEYS, LENGTHS, 1, 6, Number.POSITIVE_INFINITY, sizes);
    }
  });

  it("has the same bits however the dispatch is cut", async () => {
    const whole = await runPackedForward(build, KEYS, PACKED);
    // Before the device's own, which is its class's: the report's bundle has no spies.
    Object.defineProperty(device, "workLimit", { value: 1e5, configurable: true });
    try {
      expect(bits(await runPackedForward(build, KEYS, PACKED))).toEqual(bits(whole));
    } finally {
      Reflect.deleteProperty(device, "workLimit");
    }
  });
});

// As on hardware, where four subgroups share a tile.
it.runIf(offered)("forward by four subgroups", async () => {
  const build = { facts: { ...facts, software: false }, format: "f32", tile: "matrix32x32" } as const;
  await checkPackedForward(build, { ...KEYS, heads: 2 }, PACKED);
});

// What GPUs have: their texts, with matrices emulated (`emulated-matrices.ts`), on the machine of `wgsl/machine.ts`.
const gpu = (lanes: number, component: MatrixFacts["component"], [M, N, K]: readonly [number, number, number]) =>
  ({ subgroupSize: lanes, software: false, matrices: { component, M, N, K } }) satisfies AdapterFacts;
type Way = "forward" | "backward";
interface Emulated extends Omit<AttentionBuild, "format"> {
  readonly of: string;
  readonly headSize: number;
  readonly ways: readonly Way[];
  readonly format?: ActivationFormat;
}
const [of16, of8] = [gpu(32, "f16", [16, 16, 16]), gpu(32, "f16", [16, 8, 16])];
const both = ["forward", "backward"] as const;
const halves = { products: "f16", format: "f16" } as const;
const GPUS: readonly Emulated[] = [
  { of: "NVIDIA", facts: of16, tile: "matrix32x32", headSize: 64, ways: both },
  { of: "NVIDIA, fp16", facts: of8, tile: "matrix64x32", headSize: 64, ways: both, ...halves },
  {
    of: "AMD",
    facts: { ...of16, subgroupSize: 64 },
    tile: "matrix32x32",
    headSize: 128,
    products: "f16",
    ways: ["backward"],
  },
  { of: "Intel", facts: gpu(16, "f16", [8, 16, 16]), tile: "matrix32x32", headSize: 64, ways: ["forward"] },
  { of: "Apple", facts: gpu(32, "f32", [8, 8, 8]), tile: "matrix64x32", headSize: 64, ways: ["backward"] },
];
describe.each(GPUS)("attention by $tile as on $of, emulated", ({ headSize, of: _, ways, ...built }) => {
  const build = { format: "f32", ...built } as const;

  it.each(ways)("%s equals float64", async (way) => {
    const shape = { heads: 2, keyValueHeads: 1, headSize };
    if (way === "backward") await checkBackward(build, shape, [18, 4], 1, 7);
    else await checkPackedForward(build, shape, [{ prompt: 13, completion: 22, branch: 3 }], { window: 33 });
  });
});

describe("tiles of attention on matrices", () => {
  const kernels: readonly ((headSize: number, own: AdapterFacts) => Kernel)[] = [
    attentionForward,
    attentionBackwardQuery,
    attentionBackwardKeyValue,
  ];
  const many = { T: 512, H: 4, groupSize: 2, keysPerRow: 256 };
  const tiles = (headSize: number, own: AdapterFacts, values = many) =>
    kernels.map(
      (of) =>
        of(headSize, own)
          .candidates?.(values)
          .map(({ variant = "" }) => variant) ?? [],
    );

  it("are candidates behind the default, for heads of 64 and 128 and rows that see enough keys", () => {
    const own = gpu(32, "f16", [16, 16, 16]);
    for (const found of tiles(64, own)) expect(found).toEqual(["subgroup16", "matrix32x32", "matrix64x32"]);
    for (const found of tiles(128, own)) expect(found).toEqual(["subgroup16", "matrix32x32"]);
    for (const found of [...tiles(80, own), ...tiles(64, { ...own, matrices: undefined })]) expect(found).toEqual([""]);
    for (const found of tiles(64, own, { ...many, keysPerRow: 31 })) expect(found).toEqual([""]);
    for (const found of tiles(64, own, { ...many, T: 16 })) expect(found).toEqual([""]);
  });

  it.each([8, 16, 32, 64])("for subgroups of %i take at most 32 KiB", (lanes) => {
    for (const own of [gpu(lanes, "f16", [16, 16, 16]), gpu(lanes, "f32", [8, 8, 8])]) {
      for (const headSize of [64, 128]) {
        for (const { variant = "", wgsl } of kernels.flatMap((of) => of(headSize, own).candidates?.(many) ?? [])) {
          if (!variant.startsWith("matrix")) continue;
          const bytes = [...wgsl.matchAll(/var<workgroup> \w+: array<(f16|f32|u32), (\d+)>/g)].reduce(
            (sum, [, type, count]) => sum + (type === "f16" ? 2 : 4) * Number(count),
            0,
          );
          expect(bytes).toBeGreaterThan(0);
          expect(bytes).toBeLessThanOrEqual(32768 - 1024); // the counters
        }
      }
    }
  });
});
