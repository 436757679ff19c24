/**
 * Adapters whose subgroups have several sizes. No software adapter has, so this machine's adapter is opened while it
 * reports another range: what is pinned then is compiled and run by a real driver.
 */
import { afterEach, describe, expect, it, vi } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import { sizesWithin, withPinnedSize } from "../../../src/engine/gpu/subgroup-size.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { kernel, oneOf } from "../../../src/kernels/kernel.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { loadModel, readExamples, readExpected } from "../../helpers/fixtures.ts";

const shared = await sharedDevice();
const real = shared.facts.subgroupSize;
const hasControl = (await platform.requestAdapter(shared.kind)).adapter.features.has(
  "subgroup-size-control" as GPUFeatureName,
);

afterEach(() => vi.restoreAllMocks());

/** A device of this machine's adapter, which says that its subgroups have from `least` to `most` lanes. */
async function openWithRange(
  least: number,
  most: number,
  has: (feature: string) => boolean = () => true,
  tuning: "on" | "off" = "off",
): Promise<Device> {
  const found = await platform.requestAdapter(shared.kind);
  const { adapter } = found;
  const spoofed = new Proxy(adapter, {
    get(target, name) {
      if (name === "info") return { ...target.info, subgroupMinSize: least, subgroupMaxSize: most };
      if (name === "features") return new Set([...target.features].filter(has));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  vi.spyOn(platform, "requestAdapter").mockResolvedValue({ ...found, adapter: spoofed });
  return await Device.open({ tuning });
}

describe("the size that kernels are built for", () => {
  it.each([
    [32, 64, [32, 64]],
    [8, 32, [32, 16, 8]],
    [16, 32, [32, 16]],
    [4, 64, [32, 16, 64, 8, 4]],
    [128, 128, []],
  ])("of a range from %i to %i is tried in this order", (subgroupMinSize, subgroupMaxSize, order) => {
    expect(sizesWithin({ subgroupMinSize, subgroupMaxSize })).toEqual(order);
  });

  it("is pinned in texts that use subgroups only", () => {
    const text = "enable subgroups;\n@compute @workgroup_size(32)\nfn main() {}";
    expect(withPinnedSize(text, 16)).toBe(
      "enable subgroups;\nenable subgroup_size_control;\n@compute @subgroup_size(16) @workgroup_size(32)\nfn main() {}",
    );
    expect(withPinnedSize("@compute @workgroup_size(32)\nfn main() {}", 16)).toBe(
      "@compute @workgroup_size(32)\nfn main() {}",
    );
  });

  it("is none where it varies and cannot be pinned", async () => {
    const device = await openWithRange(real, 2 * real, (feature) => feature !== "subgroup-size-control");
    expect([device.facts.subgroupSize, device.pinsSubgroupSize]).toEqual([0, false]);
    device.close();
  });

  it("is the only one, unpinned, where it does not vary", () => {
    expect([real, shared.pinsSubgroupSize]).toEqual([shared.gpu.features.has("subgroups") ? real : 0, false]);
  });
});

// SwiftShader cannot pin sizes: there the base variants run, as the test above shows.
describe.runIf(hasControl)("a pinned size", () => {
  it("is the first of the range that the driver takes, and whole models compute with it what float64 does", async () => {
    // 32 and 16 lie within the range and are refused by the driver, which has `real` alone.
    const device = await openWithRange(real, 32);
    expect([device.facts.subgroupSize, device.pinsSubgroupSize]).toEqual([real, true]);
    const examples = readExamples("llama");
    const { beta, desirable_weight, undesirable_weight } = readExpected("llama").hyperparameters;
    const [policy, reference] = [
      await loadModel(device, "llama", "policy"),
      await loadModel(device, "llama", "reference"),
    ];
    const objective = {
      beta,
      desirableWeight: desirable_weight,
      undesirableWeight: undesirable_weight,
      lossType: "kto",
    } as const;
    const { comparison } = await checkGradients({ policy, reference, examples, objective });
    expect(comparison?.maxRelativeError).toBeLessThan(1e-3);
    device.close();
  });

  it.each(["on", "off"] as const)(
    "that a text is refused with gives the next candidate its turn (tuning %s)",
    async (tuning) => {
      const device = await openWithRange(real, 32, () => true, tuning);
      const built = (value: number, groupSize: number) =>
        kernel({
          name: "fill",
          read: {},
          write: { out: "f32[N]" },
          uniforms: { N: "u32" },
          enable: ["subgroups"],
          wgsl: /* wgsl */ `@compute @workgroup_size(${groupSize})
fn main(@builtin(local_invocation_index) lane: u32) { out[lane] = ${value}f * f32(subgroupMax(1u)); }`,
          grid: () => [1],
          cost: () => ({ flops: 1e9, bytes: 16 }),
        });
      // A workgroup must hold whole subgroups of the pinned size.
      const candidates = oneOf(
        [
          { variant: "half a subgroup", kernel: built(1, real / 2) },
          { variant: "one subgroup", kernel: built(2, real) },
        ],
        "any",
      );
      const out = device.allocate("scratch", "out", [real]);
      const program = new Program(device, "fill");
      program.dispatch(candidates, { out, N: real });
      await program.prepare();
      program.run();
      expect([...(await device.download(out))]).toEqual(new Array(real).fill(2));
      expect(program.kernels).toEqual(["fill one subgroup"]);
      device.close();
    },
  );
});
