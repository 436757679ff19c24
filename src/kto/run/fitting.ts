/**
 * What to say when an adapter cannot hold a run: the largest microbatch that it could, by plans of the run with fewer
 * rows, made on a device that only counts.
 */
import type { Device } from "../../engine/gpu/device.ts";
import { planningDevice } from "../../engine/gpu/memory-plan.ts";
import { LoraAdapter } from "../../engine/model/lora.ts";
import { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { AdapterError } from "../../errors.ts";
import type { RunInputs } from "./inputs.ts";

/** The share of what was refused that is taken to fit, where the adapter does not say how much it has. */
const LIKELY_SHARE = 0.75;

/** @throws AdapterError where a software adapter, whose memory is the host's, is asked for more than the host has */
export function checkHostMemory(device: Device): void {
  const host = platform.hostMemoryBytes();
  if (!device.isSoftware || host === undefined || device.totalBytes <= host) return;
  throw new AdapterError(
    `The run needs ${megabytes(device.totalBytes)} of device memory, which on the software adapter "${device.description}" is this machine's, and it has ${megabytes(host)}.`,
  );
}

/** The inputs of a run as far as its memory depends on them. */
interface Fitted extends RunInputs {
  readonly reference?: Model;
  readonly options?: { readonly per_device_train_batch_size?: number };
}

/**
 * The same error with the largest microbatch that fits; any other error as it is.
 *
 * @param smallest rows that a microbatch must have
 */
export async function withWhatFits<Inputs extends Fitted>(
  error: unknown,
  inputs: Inputs,
  smallest: number,
  plan: (inputs: Inputs) => object,
): Promise<unknown> {
  const { device } = inputs.policy;
  if (!(error instanceof AdapterError) || device.counts) return error;
  const size = Number(inputs.options?.per_device_train_batch_size ?? 8);
  const refused = await plannedBytes(inputs, size, plan);
  // A plan that is not refused says nothing of how much there is: the adapter ran out below what it allows.
  const most = refused === undefined ? Number.POSITIVE_INFINITY : refused * LIKELY_SHARE;
  let fitting: { size: number; bytes: number } | undefined;
  let [low, high] = [smallest, size - 1];
  while (low <= high) {
    const middle = Math.floor((low + high) / 2);
    const bytes = await plannedBytes(inputs, middle, plan);
    if (bytes !== undefined && bytes <= most) {
      fitting = { size: middle, bytes };
      low = middle + 1;
    } else high = middle - 1;
  }
  const remedy = fitting
    ? `By the plan a per_device_train_batch_size of ${fitting.size} fits, with ${megabytes(fitting.bytes)}`
    : "By the plan no per_device_train_batch_size fits: use a smaller max_length or model, or LoRA";
  return new AdapterError(`${error.message} ${remedy}.`, { cause: error });
}

/** Bytes of the run with microbatches of this size; undefined where a buffer would be too large. */
async function plannedBytes<Inputs extends Fitted>(
  inputs: Inputs,
  size: number,
  plan: (inputs: Inputs) => object,
): Promise<number | undefined> {
  const device = planningDevice(inputs.policy.device);
  try {
    const { policy, reference } = inputs;
    let model = await Model.load(device, policy.folder, { dtype: policy.numbers, storage: policy.layout.format });
    if (policy.adapter) {
      const { options, folder } = policy.adapter;
      model = model.withAdapter(LoraAdapter.create(device, model.config, options, folder));
    }
    const other = reference && {
      reference: await Model.load(device, reference.folder, {
        dtype: reference.numbers,
        storage: reference.layout.format,
        category: "reference weights" as const,
      }),
    };
    plan({ ...inputs, ...other, policy: model, options: { ...inputs.options, per_device_train_batch_size: size } });
    return device.totalBytes;
  } catch (error) {
    if (error instanceof AdapterError) return undefined;
    throw error;
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
