/** The tuner: what it chooses from timings, what it remembers, and that its choice is what a program runs. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import { type Contest, TRIAL_BYTES, Tuner } from "../../../src/engine/gpu/tuner.ts";
import { AdapterError } from "../../../src/errors.ts";
import { kernel, oneOf } from "../../../src/kernels/kernel.ts";
import { sharedDevice } from "../../helpers/device.ts";

let cache: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "kto-tuner-"));
  vi.stubEnv("KTO_CACHE", cache);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(cache, { recursive: true });
});

/** Candidates that take these milliseconds a run, on a clock that only they move. */
function contest(ms: Readonly<Record<string, number>>, about: Partial<Contest> = {}): Contest & { runs: () => number } {
  let now = 0;
  let runs = 0;
  vi.spyOn(performance, "now").mockImplementation(() => now);
  return {
    kernel: "matmulNT",
    tuningClass: "64 x 64 x 64 f32",
    variants: Object.keys(ms),
    texts: Object.keys(ms),
    flops: 1e9,
    trialBytes: 0,
    trials: async () => ({
      trials: Object.entries(ms).map(([variant, each]) => ({
        variant,
        run: async (times: number) => {
          runs += times;
          now += each * times;
        },
      })),
      done: () => undefined,
    }),
    runs: () => runs,
    ...about,
  };
}

describe("the choice", () => {
  it("is the fastest candidate", async () => {
    expect(await new Tuner("a", "on").choose(contest({ first: 3, second: 2, third: 1 }))).toBe("third");
  });

  it("stays the default where another one is hardly faster", async () => {
    expect(await new Tuner("a", "on").choose(contest({ first: 1, second: 0.95 }))).toBe("first");
  });

  it("is the default without a measurement where that is not worth it, too large, or off", async () => {
    const ms = { first: 3, second: 1 };
    for (const [tuning, about] of [
      ["on", { flops: 1e6 }],
      ["on", { trialBytes: 2 ** 30 }],
      ["off", {}],
    ] as const) {
      const one = contest(ms, about);
      expect(await new Tuner("a", tuning).choose(one)).toBe("first");
      expect(one.runs()).toBe(0);
    }
  });

  it("is measured for large results too where a GPU has the room", async () => {
    // Gate and up projections of Qwen3-0.6B, 2 rows of 2,048 tokens.
    const large = { trialBytes: 4 * 4096 * 6144 };
    expect(await new Tuner("a", "on", TRIAL_BYTES.hardware).choose(contest({ first: 3, second: 1 }, large))).toBe(
      "second",
    );
    expect(await new Tuner("a", "on").choose(contest({ first: 3, second: 1 }, large))).toBe("first");
  });

  it("is what runs on matrices, whatever it takes, where that is asked for; a choice that was adopted stands", async () => {
    const tuner = new Tuner("a", "matrices");
    const one = contest({ subgroup16: 1, matrix32x32: 9, matrix64x64: 5 }, { flops: 1e6 });
    expect(await tuner.choose(one)).toBe("matrix32x32");
    expect(await tuner.choose(contest({ first: 3, second: 1 }))).toBe("first");
    expect(one.runs()).toBe(0);
    const other = new Tuner("a", "matrices");
    other.adopt(Object.fromEntries(Object.keys(tuner.choices).map((key) => [key, "subgroup16"])));
    expect(await other.choose(one)).toBe("subgroup16");
  });

  it("is remembered for this adapter and these texts, by another process too", async () => {
    const ms = { first: 3, second: 1 };
    await new Tuner("an adapter", "on").choose(contest(ms));
    const again = contest(ms);
    expect(await new Tuner("an adapter", "on").choose(again)).toBe("second");
    expect(again.runs()).toBe(0);
    for (const [adapter, about] of [
      ["another adapter", {}],
      ["an adapter", { texts: ["first", "changed"] }],
      ["an adapter", { tuningClass: "64 x 64 x 128 f32" }],
    ] as const) {
      const other = contest(ms, about);
      await new Tuner(adapter, "on").choose(other);
      expect(other.runs()).toBeGreaterThan(0);
    }
  });

  it("is the default for the whole run where there was no room to measure, and for that run only", async () => {
    const ms = { first: 3, second: 1 };
    const full = async () => {
      throw new AdapterError("The adapter ran out of memory.");
    };
    const tuner = new Tuner("a", "on");
    expect(await tuner.choose(contest(ms, { trials: full }))).toBe("first");
    expect(await tuner.choose(contest(ms))).toBe("first");
    expect(Object.values(tuner.choices)).toEqual(["first"]);
    expect(await new Tuner("a", "on").choose(contest(ms))).toBe("second");
  });

  it("does not hang on a file that is damaged, or that cannot be written", async () => {
    const ms = { first: 3, second: 1 };
    await new Tuner("a", "on").choose(contest(ms));
    const folder = join(cache, "tuning");
    const [name = ""] = readdirSync(folder);
    const whole = readFileSync(join(folder, name), "utf8");
    for (const text of [whole.slice(0, 40), "[]", '{"adapter": "a", "choices": {"x": 3}}']) {
      writeFileSync(join(folder, name), text);
      expect(await new Tuner("a", "on").choose(contest(ms))).toBe("second");
    }
    rmSync(folder, { recursive: true });
    writeFileSync(folder, "a file where the folder should be");
    expect(await new Tuner("a", "on").choose(contest(ms))).toBe("second");
  });

  it("that a checkpoint brings goes before what this machine measured", async () => {
    const ms = { first: 3, second: 1 };
    const before = new Tuner("a", "on");
    await before.choose(contest({ first: 1, second: 3 }));
    const [key = ""] = Object.keys(before.choices);
    for (const tuning of ["on", "off"] as const) {
      const resumed = new Tuner("b", tuning);
      resumed.adopt({ [key]: "second" });
      const one = contest(ms);
      expect(await resumed.choose(one)).toBe("second");
      expect(one.runs()).toBe(0);
      expect(resumed.choices).toEqual({ [key]: "second" });
    }
    // A default that was taken unmeasured is a choice as well.
    const off = new Tuner("a", "off");
    await off.choose(contest(ms));
    const tuned = new Tuner("b", "on");
    tuned.adopt(off.choices);
    expect(await tuned.choose(contest(ms))).toBe("first");
    // One that does not exist any more is measured again.
    const old = new Tuner("c", "on");
    old.adopt({ [key]: "gone" });
    expect(await old.choose(contest({ first: 1, second: 3 }))).toBe("first");
    expect(old.choices).toEqual({ [key]: "first" });
  });
});

describe("a program", () => {
  it("runs the candidate that was chosen, over its own grid, and leaves what it writes alone until then", async () => {
    vi.restoreAllMocks();
    const shared = await sharedDevice();
    const fill = (variant: string, rounds: number, value: number, perGroup: number) => ({
      variant,
      kernel: kernel({
        name: "fill",
        read: {},
        write: { out: "f32[n]" },
        uniforms: { n: "u32" },
        wgsl: /* wgsl */ `
@compute @workgroup_size(${perGroup})
fn main(@builtin(global_invocation_id) id: vec3u) {
  var x = 1.0;
  for (var i = 0u; i < ${rounds}u; i++) { x = sin(x); }
  if (id.x < u.n) { out[id.x] = out[id.x] + ${value}.0 + min(x, 0.0); }
}`,
        grid: ({ n = 0 }) => [Math.ceil(n / perGroup)],
        cost: () => ({ flops: 1e9, bytes: 0 }),
      }),
    });
    const device = await Device.open({ adapter: shared.kind, tuning: "on" });
    try {
      const out = device.allocate("scratch", "out", [1000]);
      const program = new Program(device, "tuned");
      program.dispatch(oneOf([fill("slow", 20000, 1, 4), fill("fast", 1, 2, 64)], "1000"), { out });
      await program.prepare();
      program.run();
      const values = await device.download(out);
      // Once, by the fast one: trials wrote elsewhere.
      expect(new Set(values)).toEqual(new Set([2]));
      expect(Object.values(device.tuner.choices)).toEqual(["fast"]);
      expect(device.memory().scratch).toBe(4096);
      program.dispose();
    } finally {
      device.close();
    }
  });

  it("times candidates over the contents that decide their time, and leaves its own alone", async () => {
    vi.restoreAllMocks();
    const shared = await sharedDevice();
    // Rounds are data, of which there are none yet: both would take no time.
    const walk = (variant: string, each: number) => ({
      variant,
      kernel: kernel({
        name: "walk",
        read: { rounds: "u32[n]" },
        write: { out: "f32[n]" },
        uniforms: { n: "u32" },
        trial: ({ n = 0 }) => ({ rounds: new Uint32Array(n).fill(20) }),
        wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= u.n) { return; }
  var x = 1.0;
  for (var i = 0u; i < rounds[id.x] * ${each}u; i++) { x = sin(x); }
  out[id.x] = f32(rounds[id.x]) + min(x, 0.0);
}`,
        grid: ({ n = 0 }) => [Math.ceil(n / 64)],
        cost: () => ({ flops: 1e9, bytes: 0 }),
      }),
    });
    const device = await Device.open({ adapter: shared.kind, tuning: "on" });
    try {
      const [rounds, out] = [
        device.allocate("batch", "rounds", [640], "u32"),
        device.allocate("scratch", "out", [640]),
      ];
      const program = new Program(device, "tuned");
      program.dispatch(oneOf([walk("slow", 1000), walk("fast", 1)], "640"), { rounds, out });
      await program.prepare();
      expect(Object.values(device.tuner.choices)).toEqual(["fast"]);
      program.run();
      expect(new Set(await device.download(out))).toEqual(new Set([0]));
      program.dispose();
    } finally {
      device.close();
    }
  });
});
