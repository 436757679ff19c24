/**
 * Part of the report: the benchmarks of `kto bench` one after another, the quick ones first, for as long as there is
 * time. In a checkout other engines do the same work.
 */
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { Device } from "../../src/engine/gpu/device.ts";
import { peerRunner } from "../peers/run.ts";
import { type ChosenBenchmarks, chooseBenchmarks, fittingBenchmarks, runBenchmarks } from "../run.ts";
import { attempt } from "./attempt.ts";
import { Budget } from "./budget.ts";
import type { Finding, PartContext } from "./finding.ts";

export async function benchmarksPart(context: PartContext, emit: (finding: Finding) => void): Promise<void> {
  const budget = new Budget(context.seconds);
  const { peaks, scratch, quick } = context;
  if (peaks === undefined) throw new Error("the adapter's peaks were not measured, which shares need");
  // Generation is a part of its own.
  const device = await Device.open();
  const { kernels, steps } = fittingBenchmarks(device, chooseBenchmarks(quick));
  const none: ChosenBenchmarks = { kernels: [], generations: [], steps: [] };
  const all: { readonly name: string; readonly quick: boolean; readonly chosen: ChosenBenchmarks }[] = [
    ...kernels.map((one) => ({ ...one, name: `${one.name}, ${one.shape}`, chosen: { ...none, kernels: [one] } })),
    ...steps.map((one) => ({ ...one, chosen: { ...none, steps: [one] } })),
  ];
  const inOrder = [...all.filter(({ quick }) => quick), ...all.filter(({ quick }) => !quick)];
  const options = {
    quick: true,
    scratch: mkdtempSync(join(scratch, "bench-")),
    runPeers: quick ? async () => ({}) : peerRunner(undefined, () => undefined),
  };
  try {
    for (const { name, chosen } of budget.each(inOrder, (one) => one.name, emit)) {
      await attempt(name, emit, async () => {
        for await (const result of runBenchmarks(device, peaks, chosen, options)) {
          emit({ kind: "result", name, figures: JSON.parse(JSON.stringify(result)) });
        }
      });
    }
  } finally {
    device.close();
  }
}
