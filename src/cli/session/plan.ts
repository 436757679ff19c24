/**
 * What a run that is only planned comes to: its updates, its memory, its disk space, its time, what would make it smaller,
 * and whether the adapter would refuse it.
 */
import type { Device } from "../../engine/gpu/device.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { counted, mebibytes } from "../../errors.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import type { Run } from "../../kto/run/run.ts";
import type { Savings } from "../../kto/run/savings.ts";
import type { RunTimes } from "../../kto/run/timing.ts";
import type { Output } from "../terminal/output.ts";
import { timeFacts, timeLines } from "../terminal/time-estimate.ts";

/** A run that was planned on a device that counts. */
interface PlannedRun {
  readonly config: RunConfig;
  readonly trainer: Run;
  readonly device: Device;
  readonly ranks: Pick<Communicator, "size">;
}

/**
 * Prints the result of `dry_run`, also of a run that the adapter cannot hold.
 *
 * @param time measures the run on the real device
 * @throws AdapterError, after printing, for a run that does not fit; what `time` throws
 */
export async function tellPlan(
  planned: PlannedRun,
  savings: Savings,
  time: () => Promise<RunTimes>,
  output: Output,
): Promise<void> {
  const [refusal] = planned.device.refusals;
  if (!output.json) reportPlan(planned, output);
  let times: RunTimes | undefined;
  try {
    if (refusal !== undefined) throw refusal;
    times = await time();
  } finally {
    // The plan is printed even if the run turns out not to fit.
    if (output.json) output.jsonLine({ ...planFacts(planned, savings), ...(times ? timeFacts(times) : {}) });
    else {
      for (const line of times ? timeLines(times) : []) output.result(line);
      reportSavings(savings, refusal === undefined, output);
    }
  }
}

/** Updates, memory by category and the adapter's limit, disk space of checkpoints, what would make the run smaller. */
function planFacts(
  { trainer: { totalSteps, stepsPerEpoch, checkpointSpace }, device }: PlannedRun,
  { each, together }: Savings,
): Readonly<Record<string, unknown>> {
  return {
    dry_run: true,
    fits: device.refusals.length === 0,
    reason: device.refusals[0]?.message ?? null,
    steps: totalSteps,
    steps_per_epoch: stepsPerEpoch,
    device_bytes: device.totalBytes,
    device_bytes_by_category: device.memory(),
    largest_buffer: device.largestBuffer,
    max_buffer_size: device.limits.maxBufferSize,
    host_bytes: hostBytes(device),
    checkpoint_bytes: checkpointSpace?.bytes ?? 0,
    most_checkpoints: checkpointSpace?.most ?? 0,
    savings: each,
    fits_together: together ? { changes: together.changes, device_bytes: together.bytes } : null,
  };
}

/** Prints what would make the run smaller and, if it does not fit, what would make it fit. */
function reportSavings({ each, together }: Savings, fits: boolean, output: Output): void {
  if (each.length > 0) output.result("less device memory, each alone:");
  const width = Math.max(...each.map(({ change }) => change.length));
  for (const saving of each) {
    const enough = !fits && saving.fits ? ", and then it fits" : "";
    output.result(`  ${saving.change.padEnd(width)}  ${mebibytes(saving.bytes)} less${enough}`);
  }
  if (fits || each.some((saving) => saving.fits)) return;
  output.result(
    together
      ? `it fits with these together, in ${mebibytes(together.bytes)}: ${together.changes.join(", ")}`
      : "no option that saves memory makes it fit: take a smaller model, or use_peft where all weights are trained",
  );
}

/** Prints the plan for people. */
function reportPlan({ config, trainer, device, ranks: { size: ranks } }: PlannedRun, output: Output): void {
  const { totalSteps, stepsPerEpoch, checkpointSpace } = trainer;
  output.result(
    `${counted(totalSteps, "update")} of ${counted(ranks * config.per_device_train_batch_size * config.gradient_accumulation_steps, "row")}${ranks > 1 ? ` of ${ranks} ranks` : ""}, ${stepsPerEpoch} in an epoch`,
  );
  for (const [category, bytes] of Object.entries(device.memory()))
    output.result(`  ${category.padEnd(18)} ${mebibytes(bytes)}`);
  output.result(`  ${"device, in all".padEnd(18)} ${mebibytes(device.totalBytes)}`);
  output.result(`  ${"host, about".padEnd(18)} ${mebibytes(hostBytes(device))}`);
  const { largestBuffer, limits, refusals } = device;
  if (refusals[0]) output.result(`it does not fit: ${refusals[0].message}`);
  else
    output.result(
      `every buffer fits: the largest has ${mebibytes(largestBuffer.bytes)} (${largestBuffer.label}), and the adapter allows ${mebibytes(limits.maxBufferSize)}`,
    );
  if (checkpointSpace) {
    const { bytes, most } = checkpointSpace;
    const atOnce = most === 1 ? "there is one" : `at most ${most} at once, ${mebibytes(most * bytes)}`;
    output.result(`a checkpoint takes about ${mebibytes(bytes)} on the disk; ${atOnce}`);
  }
}

/**
 * Estimated memory of this process during the run: what it uses now, with Dawn and the data loaded, plus buffers that
 * move weights between files and device. A software adapter keeps the device's memory in the process too.
 */
function hostBytes(device: Device): number {
  return process.memoryUsage().rss + TRANSFER_BYTES + (device.isSoftware ? device.totalBytes + DRIVER_BYTES : 0);
}

/** Buffers for pieces of weights, whose memory Node gives back late. */
const TRANSFER_BYTES = 96 * 2 ** 20;
/** Compiled kernels of a software adapter. */
const DRIVER_BYTES = 128 * 2 ** 20;
