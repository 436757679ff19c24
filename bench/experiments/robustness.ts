/**
 * Times matmul tiles, whole updates (steps (a) and (b) of the benchmark) and generation, with Dawn's bounds checks and without (the
 * toggle `disable_robustness`), alternating in one process on two devices of one adapter, so that the machine's other
 * work meets both alike. Both must give the same bits.
 *
 *   npx tsx bench/experiments/robustness.ts [--size N] [--rounds N] [--tiles A,B] [--updates N] [--tokens N]
 *
 * KTO_ADAPTER chooses the adapter. Medians of the ratios of a round: of processor time on software adapters, which
 * compute in this process, of wall time elsewhere. Updates and tokens are those that are asked for; `--tiles none` leaves out tiles.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { create } from "webgpu";
import { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { Model } from "../../src/engine/model/model.ts";
import { platform } from "../../src/engine/platform/index.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { swiftShaderDriver, swiftShaderFolder } from "../../src/engine/platform/node-swiftshader.ts";
import type { FoundAdapter } from "../../src/engine/platform/platform.ts";
import { Random } from "../../src/engine/random.ts";
import { type MatmulLayout, matmul } from "../../src/kernels/matmul.ts";
import { type TileName, tileNames } from "../../src/kernels/matmul-variant.ts";
import { type AdapterFacts, BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { tokenStamps } from "../generation.ts";
import { summary } from "../measure/measure.ts";
import { smolLM2Shape } from "../model-shapes.ts";
import { writeLargeRandomModel } from "../random-model.ts";
import { type StepCase, stepCases } from "../step.ts";
import { now, since, type Timed } from "./timed.ts";
import { inTurns, prepareUpdates, type Subject } from "./updates.ts";

/** Updates of each before those that are timed. */
const WARM_UP = 2;
/** Least time of one timing, in milliseconds. */
const LEAST_MS = 50;

/** Kept: an instance that is collected takes its devices along. */
const instances: GPU[] = [];

/** A device of this adapter whose shaders index with bounds checks or without. */
async function openAdapter({ kind, description }: FoundAdapter, checks: boolean): Promise<Device> {
  const folder = kind === "swiftshader" ? await swiftShaderFolder() : undefined;
  const before = process.env.VK_DRIVER_FILES;
  if (folder !== undefined) process.env.VK_DRIVER_FILES = swiftShaderDriver(folder);
  const gpu = create(checks ? [] : ["enable-dawn-features=disable_robustness"]);
  instances.push(gpu);
  const asked = gpu.requestAdapter({ powerPreference: "high-performance" });
  if (before === undefined) delete process.env.VK_DRIVER_FILES;
  else process.env.VK_DRIVER_FILES = before;
  const adapter = await asked;
  if (adapter === null) throw new Error(`"${description}" cannot be opened once more`);
  const { requestAdapter } = platform;
  Object.assign(platform, { requestAdapter: async () => ({ adapter, kind, description }) });
  try {
    return await Device.open({ tuning: "off" });
  } finally {
    Object.assign(platform, { requestAdapter });
  }
}

const timeOf = ({ isSoftware }: Device, { ms, processorMs }: Timed) => (isSoftware ? processorMs : ms);

/** Updates of one of the benchmark's steps on both devices, in turns. */
async function compareUpdates(devices: readonly [Device, Device], step: StepCase, rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "kto-robustness-"));
  const subjects: Subject[] = [];
  try {
    for (const device of devices) subjects.push(await prepareUpdates(device, folder, step, rounds + WARM_UP));
    await inTurns(subjects, WARM_UP, rounds);
    tell(
      step.name,
      subjects.map(({ times }, at) => times.map((one) => timeOf(devices[at] ?? checked, one))),
    );
  } finally {
    for (const { free } of subjects) free();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Tokens of one and of sixteen sequences by SmolLM2-135M's shape on both devices, in turns of so many tokens. */
async function compareGeneration(devices: readonly [Device, Device], tokens: number, rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "kto-robustness-"));
  try {
    await writeLargeRandomModel(folder, smolLM2Shape, 1);
    const models = [await Model.load(devices[0], folder), await Model.load(devices[1], folder)] as const;
    for (const sequences of [1, 16]) {
      const sizes = { sequences, promptTokens: 1, newTokens: tokens };
      const generators = models.map((model) => new Generator(model, { maxBatch: sequences, maxLength: tokens + 1 }));
      const times: number[][] = [[], []];
      for (let round = 0; round < rounds + 1; round++) {
        for (const [at, generator] of generators.entries()) {
          const stamps = await tokenStamps(generator, smolLM2Shape.vocab_size, sizes, now);
          const [first, last] = [stamps[0] ?? now(), stamps.at(-1) ?? now()];
          // The first round compiles.
          if (round > 0) times[at]?.push((timeOf(checked, last) - timeOf(checked, first)) / (stamps.length - 1));
        }
      }
      for (const generator of generators) generator.free();
      tell(`a token of ${sequences === 1 ? "one sequence" : `${sequences} sequences`}`, times);
    }
    for (const model of models) model.free();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Prints what two devices take turns at. */
function tell(name: string, [safe = [], bare = []]: readonly number[][]): void {
  const ratio = summary(safe.map((ms, round) => ms / (bare[round] ?? Number.NaN)));
  const [from, to] = [safe, bare].map((times) => summary(times).medianMs.toFixed(1));
  console.log(
    `${name}: ${from} -> ${to} ms without bounds checks, ${ratio.medianMs.toFixed(3)} times (spread ${(100 * ratio.spread).toFixed(0)}%)`,
  );
}

/** A product of square matrices by one tile, and its result. */
async function prepare(device: Device, layout: MatmulLayout, size: number, tile: TileName, facts: AdapterFacts) {
  const shape = { M: size, N: size, K: size };
  const whole = matmul(layout, shape, facts);
  const found = (whole.candidates?.(shape) ?? [whole]).find(({ variant }) => variant === tile);
  if (found === undefined) throw new Error(`${layout} has no tile ${tile}`);
  const { candidates: _, ...kernel } = found;
  const random = new Random(7);
  const of = (label: string) => device.allocate("scratch", label, [size, size]);
  const [a, b, out] = [of("a"), of("b"), of("out")];
  for (const tensor of [a, b]) {
    device.upload(
      tensor,
      Float32Array.from({ length: size * size }, () => random.normal()),
    );
  }
  const program = new Program(device, tile);
  const unused = {
    bias: device.allocate("scratch", "bias", [4]),
    residual: device.allocate("scratch", "rest", [1, 4]),
  };
  program.dispatch(kernel, {
    ...{ a, b, out, ...unused, ...shape, aFrom: 0, outFrom: 0, scale: 1 },
    ...{ hasBias: 0, hasResidual: 0, accumulate: 0 },
  });
  await program.prepare();
  program.run();
  const result = new Uint32Array(await device.downloadBytes(out));
  const timed = async (times: number): Promise<number> => {
    const start = now();
    for (let i = 0; i < times; i++) program.run();
    await device.idle();
    return timeOf(device, since(start)) / times;
  };
  const free = () => {
    program.dispose();
    for (const tensor of [a, b, out, ...Object.values(unused)]) device.free(tensor);
  };
  return { result, timed, free };
}

const { values } = parseArgs({
  options: {
    size: { type: "string", default: "512" },
    rounds: { type: "string", default: "9" },
    tiles: { type: "string" },
    updates: { type: "string" },
    tokens: { type: "string" },
  },
});
const size = Number(values.size);
const adapter = await platform.requestAdapter();
const checked = await openAdapter(adapter, true);
const unchecked = await openAdapter(adapter, false);
const shape = { M: size, N: size, K: size };
const layouts = ["NN", "NT", "TN"] as const;
const tiles = [checked.facts, BASE_FACTS].flatMap((facts) =>
  layouts.flatMap((layout) => tileNames(layout, shape, facts).map((tile) => ({ tile, layout, facts }))),
);
console.log(
  `${checked.description}, ${size}^3, ${values.rounds} rounds, ${checked.isSoftware ? "processor" : "wall"} time, commit ${commit()}`,
);
for (const { tile, layout, facts } of tiles) {
  if (values.tiles !== undefined && !values.tiles.split(",").includes(tile)) continue;
  const contenders = [
    await prepare(checked, layout, size, tile, facts),
    await prepare(unchecked, layout, size, tile, facts),
  ] as const;
  const [safe, bare] = contenders;
  const differing = safe.result.filter((word, i) => word !== bare.result[i]).length;
  if (differing > 0) throw new Error(`${layout} ${tile}: ${differing} results differ without bounds checks`);
  const times = Math.ceil(LEAST_MS / Math.max(0.01, await bare.timed(1)));
  const rounds: [number, number][] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    rounds.push([await safe.timed(times), await bare.timed(times)]);
  }
  tell(
    `${layout} ${tile.padEnd(16)}`,
    [0, 1].map((side) => rounds.map((pair) => pair[side] ?? Number.NaN)),
  );
  for (const { free } of contenders) free();
}
if (values.updates !== undefined) {
  for (const step of stepCases.filter(({ options }) => options === undefined)) {
    await compareUpdates([checked, unchecked], step, Number(values.updates));
  }
}
if (values.tokens !== undefined) {
  await compareGeneration([checked, unchecked], Number(values.tokens), Number(values.rounds));
}
checked.close();
unchecked.close();
