/**
 * Times matmul tiles with Dawn's bounds checks and without (the toggle `disable_robustness`), alternating in one
 * process on two devices of one adapter, so that the machine's other work meets both alike. Both must give the same
 * bits.
 *
 *   npx tsx bench/experiments/robustness.ts [--size N] [--rounds N] [--tiles A,B]
 *
 * KTO_ADAPTER chooses the adapter. Medians of the ratios of a round.
 */
import { parseArgs } from "node:util";
import { create } from "webgpu";
import { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { platform } from "../../src/engine/platform/index.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { swiftShaderDriver, swiftShaderFolder } from "../../src/engine/platform/node-swiftshader.ts";
import { Random } from "../../src/engine/random.ts";
import { type MatmulLayout, matmul } from "../../src/kernels/matmul.ts";
import { type TileName, tileNames } from "../../src/kernels/matmul-variant.ts";
import { type AdapterFacts, BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { summary } from "../measure/measure.ts";

/** Least time of one timing, in milliseconds. */
const LEAST_MS = 50;

/** Kept: an instance that is collected takes its devices along. */
const instances: GPU[] = [];

/** A device of the same adapter on which shaders index without bounds checks. */
async function openUnchecked({ kind, description }: Device): Promise<Device> {
  const folder = kind === "swiftshader" ? await swiftShaderFolder() : undefined;
  const before = process.env.VK_DRIVER_FILES;
  if (folder !== undefined) process.env.VK_DRIVER_FILES = swiftShaderDriver(folder);
  const gpu = create(["enable-dawn-features=disable_robustness"]);
  instances.push(gpu);
  const asked = gpu.requestAdapter({ powerPreference: "high-performance" });
  if (before === undefined) delete process.env.VK_DRIVER_FILES;
  else process.env.VK_DRIVER_FILES = before;
  const adapter = await asked;
  if (adapter === null) throw new Error(`there is no adapter without bounds checks beside "${description}"`);
  const { requestAdapter } = platform;
  Object.assign(platform, { requestAdapter: async () => ({ adapter, kind, description }) });
  try {
    return await Device.open({ tuning: "off" });
  } finally {
    Object.assign(platform, { requestAdapter });
  }
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
    const start = performance.now();
    for (let i = 0; i < times; i++) program.run();
    await device.idle();
    return (performance.now() - start) / times;
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
  },
});
const size = Number(values.size);
const checked = await Device.open({ tuning: "off" });
const unchecked = await openUnchecked(checked);
const shape = { M: size, N: size, K: size };
const layouts = ["NN", "NT", "TN"] as const;
const tiles = [checked.facts, BASE_FACTS].flatMap((facts) =>
  layouts.flatMap((layout) => tileNames(layout, shape, facts).map((tile) => ({ tile, layout, facts }))),
);
console.log(`${checked.description}, ${size}^3, ${values.rounds} rounds, commit ${commit()}`);
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
  const [from, to] = [0, 1].map((side) => summary(rounds.map((pair) => pair[side] ?? Number.NaN)).medianMs.toFixed(1));
  const ratio = summary(rounds.map(([one, other]) => one / other)).medianMs;
  console.log(`${layout} ${tile.padEnd(16)} ${from} -> ${to} ms without bounds checks, ${ratio.toFixed(3)} times`);
  for (const { free } of contenders) free();
}
checked.close();
unchecked.close();
