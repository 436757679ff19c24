/** What a run that is only planned comes to: its updates, its memory, its disk space, and what would make it smaller. */
import type { Device } from "../../engine/gpu/device.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { counted, mebibytes } from "../../errors.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import type { Run } from "../../kto/run/run.ts";
import type { Saving } from "../../kto/run/savings.ts";
import type { Output } from "../terminal/output.ts";

/** The result of `dry_run`: updates, memory by category and the adapter's limit, disk space of checkpoints. */
export function planFacts(
  { totalSteps, stepsPerEpoch, checkpointSpace }: Run,
  device: Device,
): Readonly<Record<string, unknown>> {
  return {
    dry_run: true,
    steps: totalSteps,
    steps_per_epoch: stepsPerEpoch,
    device_bytes: device.totalBytes,
    device_bytes_by_category: device.memory(),
    largest_buffer: device.largestBuffer,
    max_buffer_size: device.limits.maxBufferSize,
    host_bytes: hostBytes(device),
    checkpoint_bytes: checkpointSpace?.bytes ?? 0,
    most_checkpoints: checkpointSpace?.most ?? 0,
  };
}

/** Prints what would make the run smaller. */
export function reportSavings(found: readonly Saving[], output: Output): void {
  if (found.length === 0) return;
  output.result("less device memory, each alone:");
  const width = Math.max(...found.map(({ change }) => change.length));
  for (const { change, bytes } of found) output.result(`  ${change.padEnd(width)}  ${mebibytes(bytes)} less`);
}

/** Prints the plan for people. */
export function reportPlan(
  config: RunConfig,
  trainer: Run,
  device: Device,
  { size: ranks }: Pick<Communicator, "size">,
  output: Output,
): void {
  const { totalSteps, stepsPerEpoch, checkpointSpace } = trainer;
  output.result(
    `${counted(totalSteps, "update")} of ${counted(ranks * config.per_device_train_batch_size * config.gradient_accumulation_steps, "row")}${ranks > 1 ? ` of ${ranks} ranks` : ""}, ${stepsPerEpoch} in an epoch`,
  );
  for (const [category, bytes] of Object.entries(device.memory()))
    output.result(`  ${category.padEnd(18)} ${mebibytes(bytes)}`);
  output.result(`  ${"device, in all".padEnd(18)} ${mebibytes(device.totalBytes)}`);
  output.result(`  ${"host, about".padEnd(18)} ${mebibytes(hostBytes(device))}`);
  const { largestBuffer, limits } = device;
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
