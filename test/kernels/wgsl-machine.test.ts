/** The machine that runs kernels at any number of lanes: against this adapter, and what it stops at or refuses. */
import { describe, expect, it } from "vitest";
import { type Kernel, kernel } from "../../src/kernels/kernel.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import { BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { candidate, f32, type HostArray, onMachine, runKernel, u32, unset, zeros } from "../helpers/gpu.ts";
import { translate } from "../helpers/wgsl/translate.ts";
import { OutOfBounds } from "../helpers/wgsl/values.ts";

const device = await sharedDevice();
const lanes = device.facts.subgroupSize;
const text = (body: string, { more = "", size = 16, enable = "" } = {}) =>
  `${enable}struct Uniforms { N: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
${more}
@compute @workgroup_size(${size})
fn main(@builtin(local_invocation_index) i: u32, @builtin(subgroup_invocation_id) lane: u32) { ${body} }`;

/** Runs a body over x [16] and y [16] with subgroups of 8. */
function run(body: string, options: { more?: string; size?: number } = {}): Float32Array {
  const source: Kernel = {
    ...kernel({
      name: "tried",
      read: { x: "f32[N]" },
      write: { y: "f32[N]" },
      uniforms: { N: "u32" },
      wgsl: "",
      grid: () => [1],
      cost: () => ({ flops: 0, bytes: 0 }),
    }),
    wgsl: text(body, { enable: "enable subgroups;\n", ...options }),
  };
  const x = f32(
    [16],
    Array.from({ length: 16 }, (_, i) => i),
  );
  return new Float32Array(onMachine(source, { x, y: zeros(16) }, 8).get("y") ?? new ArrayBuffer(0));
}

describe("the machine gives the bits that the adapter gives", () => {
  /** Runs one statement for each result on both, over words of every kind. */
  async function expectSameBits(statements: readonly string[], enable: readonly string[] = []): Promise<void> {
    const count = 256;
    const random = seeded(3);
    const tried = kernel({
      name: "tried",
      read: { words: "u32[n]", numbers: "f32[n]" },
      write: { results: "u32[n, S]" },
      uniforms: { n: "u32", S: "u32" },
      enable,
      wgsl: /* wgsl */ `
@compute @workgroup_size(${Math.max(4, lanes)})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(${enable.length > 0 ? "subgroup_invocation_id" : "local_invocation_index"}) lane: u32) {
  let i = group.x * ${Math.max(4, lanes)}u + lane;
  let a: u32 = words[i];
  let b: u32 = words[(i + 7u) % u.n];
  let p: f32 = numbers[i];
  let q: f32 = numbers[(i + 7u) % u.n];
  let v: vec4f = vec4f(p, q, -p, 2.5);
  ${statements.map((statement, s) => `results[i * u.S + ${s}u] = ${statement};`).join("\n")}
}`,
      grid: () => [count / Math.max(4, lanes)],
      cost: () => ({ flops: 0, bytes: 0 }),
    });
    const words = u32(
      [count],
      Array.from({ length: count }, (_, i) => (i < 8 ? i : random.below(2 ** 32))),
    );
    // Quarters below 1,000: sums and products of two or three are exact, however they are rounded on the way.
    const numbers = f32(
      [count],
      Array.from({ length: count }, () => (random.below(8000) - 4000) / 4),
    );
    const results: HostArray = u32([count, statements.length], new Array(count * statements.length).fill(7));
    const args = { words, numbers, results };
    const real = new Uint32Array((await runKernel(device, tried, args))("results").buffer);
    const own = new Uint32Array(onMachine(tried, args, Math.max(1, lanes)).get("results") ?? new ArrayBuffer(0));
    for (const [s, statement] of statements.entries()) {
      const of = (all: Uint32Array) => [...all].filter((_, i) => i % statements.length === s);
      expect(of(own), statement).toEqual(of(real));
    }
  }

  it("of whole numbers, which wrap round, and of conversions", () =>
    expectSameBits([
      "a + b",
      "a - b",
      "a * b",
      "a / (b | 1u)",
      "a % (b | 1u)",
      "(a & b) ^ (a | ~b)",
      "(a << (b & 31u)) + (a >> 5u)",
      "min(a, b) + max(a, 77u)",
      "select(a, b, a < b)",
      "u32(p)",
      // Numbers that f32 holds: how others are rounded is the adapter's choice.
      "bitcast<u32>(f32(a & 0xffffffu))",
      "u32(p < q) + 2u * u32(p >= q && a != b)",
      "bitcast<u32>(unpack2x16float(a & 0x7bff7bffu).y)",
      // No subnormal numbers, which an adapter may flush to zero, as Mesa 26's lavapipe does.
      "bitcast<u32>(bitcast<f32>((b << 16u) | 0x800000u) * 2.0)",
    ]));

  it("of numbers and vectors", () =>
    expectSameBits([
      "bitcast<u32>(p + q * 2.0)",
      "bitcast<u32>(fma(p, q, 1.0))",
      "bitcast<u32>(-p - abs(q))",
      "bitcast<u32>(dot(v, vec4f(1.0, 2.0, 3.0, 4.0)))",
      "bitcast<u32>(v.wzyx.y + (v * 2.0).x - (3.0 - v.yz).x)",
      "bitcast<u32>(clamp(p, -5.0, 5.0) + floor(q))",
      "bitcast<u32>(select(v, vec4f(9.0), v > vec4f(0.0)).y)",
      "bitcast<u32>(vec4f(v.xy, q, 1.0)[a % 4u])",
      "bitcast<u32>(max(vec4f(p), v).z)",
      "bitcast<vec4u>(v).z + bitcast<vec2u>(v.xy).y",
      "bitcast<u32>((bitcast<vec4f>(bitcast<vec4u>(v) & vec4u(0xffffe000u))).w)",
      "vec4u(a, b, 3u, 4u).y + u32(dot(vec4f(1.0), vec4f(2.0)))",
    ]));

  it.runIf(lanes >= 4)("of what lanes exchange", () =>
    expectSameBits(
      [
        "bitcast<u32>(subgroupAdd(p))",
        "bitcast<u32>(subgroupMax(p))",
        "subgroupMin(a)",
        "subgroupShuffle(a, (lane + 3u) % 4u)",
        "subgroupShuffleXor(a, 2u)",
        "subgroupBroadcast(a, 1u) + subgroupBroadcastFirst(b)",
        "select(0u, subgroupShuffleDown(a, 1u), lane < 3u)",
        "bitcast<u32>(subgroupShuffle(v, 2u).y)",
        "select(1u, 2u, subgroupElect())",
      ],
      ["subgroups"],
    ),
  );

  it.each(["subgroup16", "subgroup16k4", "subgroup16x4", "workgroup64x64"])("of a matmul by %s", async (tile) => {
    const facts = lanes >= 4 && tile.startsWith("s") ? { subgroupSize: lanes, software: false } : BASE_FACTS;
    if (facts === BASE_FACTS && tile.startsWith("s")) return;
    const [M, N, K] = [36, 40, 148];
    const random = seeded(1);
    const whole = (size: number) => Array.from({ length: size }, () => random.below(9) - 4);
    const args = {
      ...{ a: f32([M, K], whole(M * K)), b: f32([K, N], whole(K * N)), out: unset(M, N) },
      ...{ bias: f32([N], whole(N)), residual: f32([M, N], whole(M * N)), hasBias: 1, hasResidual: 1, accumulate: 0 },
      ...{ scale: 1, aFrom: 0, outFrom: 0, M, N, K },
    };
    const kernel = candidate(matmul("NN", { M, N, K }, facts), tile);
    const real = (await runKernel(device, kernel, args))("out");
    const own = onMachine(kernel, args, facts.subgroupSize).get("out") ?? new ArrayBuffer(0);
    expect([...new Float32Array(own)]).toEqual([...real]);
  });
});

describe("it stops where WGSL leaves the result to the adapter", () => {
  it.each([
    ["y[i] = x[i + 1u];", "reads x[16] of 16"],
    ["if (i == 3u) { y[4u * i + 4u] = 1.0; }", "writes y[16] of 16"],
    ["var own = array<f32, 4>(); y[i] = own[i / 3u];", "of 4"],
    ["y[i] = shared_[i - 1u];", "of 16", "var<workgroup> shared_: array<f32, 16>;"],
  ])("an index out of bounds: %s", (body, message, more = "") => {
    expect(() => run(body, { more })).toThrow(OutOfBounds);
    expect(() => run(body, { more })).toThrow(message);
  });

  it.each([
    ["if (lane < 5u) { y[i] = subgroupAdd(x[i]); }", "lanes of a subgroup wait at different places"],
    [
      "let p: f32 = x[i]; let q = subgroupBroadcast(p, 0u); if (lane < 5u) { y[i] = subgroupBroadcast(p, 1u); }",
      "lanes of a subgroup wait at different places",
    ],
    ["if (lane == 1u) { return; } let q = subgroupAdd(1.0);", "lanes of a subgroup wait at different places"],
    ["if (i % 2u == 0u) { workgroupBarrier(); }", "invocations of a workgroup wait at different places"],
  ])("invocations that part: %s", (body, message) => {
    expect(() => run(body)).toThrow(message);
  });

  it("a lane that does not exist gives NaN", () => {
    const own = run("let p: f32 = x[i]; y[i] = subgroupShuffleDown(p, 1u);");
    // Neighbours are in different subgroups, so each lane's next one is two invocations on.
    expect([...own]).toEqual([...Array.from({ length: 14 }, (_, i) => i + 2), Number.NaN, Number.NaN]);
  });

  it("workgroup memory is zero at first, and barriers order what is written to it", () => {
    const more = "var<workgroup> last: array<f32, 16>; var<workgroup> claimed: atomic<u32>;";
    const own = run(
      "let before = last[i]; workgroupBarrier(); last[i] = x[i]; workgroupBarrier(); atomicAdd(&claimed, 1u); y[i] = before + last[15u - i];",
      { more },
    );
    expect([...own]).toEqual(Array.from({ length: 16 }, (_, i) => 15 - i));
  });
});

it("what all load between two barriers is what the last wrote, and none writes before all have loaded", () => {
  const more = "var<workgroup> largest: atomic<u32>; var<workgroup> sum: f32;";
  const own = run(
    `atomicMax(&largest, 20u - i); let first = workgroupUniformLoad(&largest); atomicStore(&largest, i);
     if (i == 5u) { sum = 0.5; }
     let then = workgroupUniformLoad(&sum); y[i] = f32(first) + then; `,
    { more },
  );
  expect([...own]).toEqual(new Array(16).fill(20.5));
});

describe("what it does not know is refused", () => {
  it.each([
    ["let q = subgroupInclusiveAdd(1.0);", "subgroupInclusiveAdd() is not understood"],
    ["y[i] = refract(1.0, 2.0);", "refract() is not understood"],
    ["switch i { default { } }", "switch"],
    ["y[i] = z[i];", "the name z is not understood"],
    ["y[i] = vec4f(1.0).w1;", "a vector has no w1"],
    ["let q: f32 = #;", "is not understood"],
  ])("%s", (body, message) => {
    expect(() => translate(text(body))).toThrow(message);
  });

  it("a workgroup that is not whole subgroups", () => {
    expect(() => run("y[i] = subgroupAdd(x[i]);", { size: 12 })).toThrow("a workgroup of 12 is not whole subgroups");
  });
});
