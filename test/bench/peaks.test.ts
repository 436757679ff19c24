/** What an adapter's peaks are measured by computes what it says, so that no compiler can leave it out. */
import { expect, test } from "vitest";
import { multiplyAdd, multiplyMatrices, peaksText } from "../../bench/measure/peaks.ts";
import { chooseBenchmarks, fittingBenchmarks } from "../../bench/run.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { sharedDevice } from "../helpers/device.ts";

const device = await sharedDevice();
const { matrices, subgroupSize } = device.facts;

test.each(["f32", "f16"] as const)("multiply-adds in %s come to what they compute", async (type) => {
  if (type === "f16" && !device.gpu.features.has("shader-f16")) return;
  const out = device.allocate("scratch", "sums", [8, 4]);
  const program = new Program(device, "multiply-adds");
  program.dispatch(multiplyAdd(type), { out });
  await program.prepare();
  program.run();
  const found = await device.download(out);
  // Each of twelve chains s = s x + 1/2 has come to rest; x is the invocation's number in thousandths.
  for (let i = 0; i < 32; i++)
    expect(Math.abs((found[i] ?? Number.NaN) / (6 / (1 - Math.floor(i / 4) * 1e-3)) - 1)).toBeLessThan(1e-2);
  program.dispose();
  device.free(out);
});

test("benchmarks for hardware alone are none on software, and a choice of these alone is refused", () => {
  const asked = chooseBenchmarks(false, "operands in f16");
  expect(asked.kernels).toHaveLength(3);
  if (device.isSoftware)
    expect(() => fittingBenchmarks(device, asked)).toThrow("cannot be measured by matmul NN, operands");
  else expect(fittingBenchmarks(device, asked)).toEqual(asked);
  const { kernels } = fittingBenchmarks(device, chooseBenchmarks(false, "matmul"));
  expect(kernels.some(({ hardwareOnly }) => hardwareOnly)).toBe(!device.isSoftware);
});

test.runIf(matrices !== undefined)("matrices are multiplied and added as often as is counted", async () => {
  if (matrices === undefined) throw new Error("no matrices");
  const { M, N, K } = matrices;
  const count = 3;
  const measured = multiplyMatrices(matrices, subgroupSize);
  const out = device.allocate("scratch", "sums", [count, M * N]);
  const program = new Program(device, "matrices");
  program.dispatch(measured, { out });
  await program.prepare();
  program.run();
  // The operands' numbers go round eight, from n on; sums of as many rounds as the last sum has had.
  const operand = (i: number) => ((i + count) % 8) * 1e-3;
  const rounds = 64;
  const wanted = Array.from({ length: M * N }, (_, at) => {
    const [row, column] = [Math.floor(at / N), at % N];
    let sum = 0;
    for (let k = 0; k < K; k++) sum += operand(row * K + k) * operand(column * K + k);
    return rounds * sum;
  });
  const found = await device.download(out);
  for (let i = 0; i < found.length; i++)
    expect(Math.abs((found[i] ?? Number.NaN) / (wanted[i % (M * N)] ?? 0) - 1)).toBeLessThan(1e-2);
  expect(program.cost.flops).toBe(2 * M * N * K * 8 * rounds * count);
  program.dispose();
  device.free(out);
});

test("peaks in words name those that the adapter has", () => {
  const found = { gflops: 94.26, gbps: 12.2 };
  expect(peaksText(found)).toBe("94.3 GFLOP/s (f32, fused multiply-add), 12.2 GB/s (copy, read and written)");
  expect(peaksText({ ...found, f16Gflops: 180, matrixGflops: 700 }, Math.round)).toBe(
    "94 GFLOP/s (f32, fused multiply-add), 180 in f16, 700 by matrices, 12 GB/s (copy, read and written)",
  );
});
