/** The emulator itself: against this adapter's own subgroups, and what it refuses to rewrite. */
import { describe, expect, it } from "vitest";
import { attentionForward } from "../../src/kernels/attention.ts";
import type { Kernel, KernelArguments } from "../../src/kernels/kernel.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import { bits, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { emulatedText, emulateSubgroups } from "../helpers/emulated-subgroups.ts";
import { candidate, f32, type HostArray, runKernel, u32, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();
const lanes = device.facts.subgroupSize;
const facts = { subgroupSize: lanes, software: false };

/** Runs a kernel on the adapter's subgroups and on emulated ones of the same size: the same bits. */
async function expectSameBits<B extends string, U extends string>(
  kernel: Kernel<B, U>,
  args: KernelArguments<HostArray, B, U>,
  result: B,
): Promise<void> {
  const emulated = emulateSubgroups(kernel, lanes);
  expect(emulated.wgsl).not.toContain("subgroups");
  const real = (await runKernel(device, kernel, args))(result);
  expect(bits((await runKernel(device, emulated, args))(result))).toEqual(bits(real));
}

describe.runIf(lanes >= 4)("emulated lanes give the bits of real ones", () => {
  const random = seeded(1);

  // 37 steps of four along k: the four slices of split-K leave their loop at different times.
  it.each(["subgroup16", "subgroup16k4"])("in a matmul by %s", async (tile) => {
    const [M, N, K] = [36, 40, 148];
    const unused = { bias: unset(4), residual: unset(1, 4), hasBias: 0, hasResidual: 0, accumulate: 0 };
    await expectSameBits(
      candidate(matmul("NN", { M, N, K }, facts), tile),
      {
        ...unused,
        a: f32([M, K], normals(random, M * K)),
        b: f32([K, N], normals(random, K * N)),
        out: unset(M, N),
        scale: 1,
        aFrom: 0,
        outFrom: 0,
      },
      "out",
    );
  });

  it("in attention, whose lanes fold, shuffle and broadcast", async () => {
    const [T, headSize] = [21, 20];
    const fused = f32([T, 3 * headSize], normals(random, T * 3 * headSize));
    const { candidates: _, ...many } = attentionForward(headSize, facts);
    await expectSameBits(
      many,
      {
        ...{ q: fused, k: fused, v: fused, qFrom: 0, kFrom: headSize, vFrom: 2 * headSize },
        ranges: u32([T, 4], Array.from({ length: T }, (_, row) => [0, 0, 0, row + 1]).flat()),
        out: unset(T, headSize),
        logSumExp: unset(T, 1),
        groupSize: 1,
        keysPerRow: 64,
      },
      "out",
    );
  });
});

describe("what cannot be rewritten is refused by name", () => {
  const text = (body: string) =>
    `enable subgroups;\nstruct Uniforms { N: u32 }\n@compute @workgroup_size(16)\nfn main(@builtin(subgroup_invocation_id) lane: u32) { ${body} }`;

  it.each([
    ["let x = 1.0; let y = subgroupBroadcast(x, 0u);", "subgroupBroadcast(x, 0u), whose value has no declared type,"],
    ["let y = subgroupAdd(1.0 + 2.0);", "subgroupAdd(1.0 + 2.0), whose value has no declared type,"],
    ["let x: f32 = 1.0; let y = subgroupInclusiveAdd(x);", "subgroupInclusiveAdd(x)"],
    ["let y = subgroupAll(lane < 4u);", "subgroupAll(lane < 4u), whose value has no declared type,"],
    [
      "@diagnostic(off, subgroup_uniformity)\nfor (var k = lane; k < u.N; k += 4u) { out[k] = 1.0; }",
      '"out[k] = 1.0;" where subgroups part',
    ],
  ])("%s", (body, what) => {
    expect(() => emulatedText("fill", text(body), 16)).toThrow(
      `fill: ${what} cannot be rewritten for 16 emulated lanes`,
    );
  });

  it("a workgroup that is not whole subgroups", () => {
    expect(() => emulatedText("fill", text("let x = lane;"), 32)).toThrow(
      "fill: a workgroup of 16 cannot be rewritten",
    );
  });

  it("takes the type of the declaration that is last before the use", () => {
    const twice = text("{ let x: u32 = 1u; } let x: f32 = 2.0; let y = subgroupAdd(x);");
    expect(emulatedText("fill", twice, 16)).toContain("let y = allAdd_f32(x);");
  });
});
