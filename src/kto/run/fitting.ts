/**
 * What to say when an adapter cannot hold a run: the largest microbatch that it could, found by planning the run with
 * fewer rows on a device that only counts.
 */
import type { Device, MemoryCategory } from "../../engine/gpu/device.ts";
import { planningDevice } from "../../engine/gpu/memory-plan.ts";
import { LoraAdapter } from "../../engine/model/lora.ts";
import { Model } from "../../engine/model/model.ts";
import type { Quantization } from "../../engine/model/weights/quantization.ts";
import { platform } from "../../engine/platform/index.ts";
import { AdapterError, mebibytes } from "../../errors.ts";
import { usesPairs } from "../method/objective.ts";
import type { Method, RunInputs } from "./inputs.ts";

/** The share of what was refused that is taken to fit, where the adapter does not say how much it has. */
const LIKELY_SHARE = 0.75;

/** Allocates a run without running it. */
export type Allocate = (inputs: RunInputs, method: Method) => void;

/**
 * Refuses (`Device.refuse`) more memory than the host has, whose memory a software adapter's is.
 *
 * @throws AdapterError on a device that does not count on
 */
export function checkHostMemory(device: Device): void {
  const host = platform.hostMemoryBytes();
  if (!device.isSoftware || host === undefined || device.totalBytes <= host) return;
  device.refuse(
    `The run needs ${mebibytes(device.totalBytes)} of device memory, which on the software adapter "${device.description}" is this machine's, and it has ${mebibytes(host)}.`,
  );
}

/** An AdapterError with the largest microbatch that fits added to it; any other error as it is. */
export async function withWhatFits(
  error: unknown,
  inputs: RunInputs,
  method: Method,
  allocate: Allocate,
): Promise<unknown> {
  if (!(error instanceof AdapterError) || inputs.policy.device.counts) return error;
  const size = method.options.per_device_train_batch_size;
  const refused = await plannedBytes(inputs, method, allocate);
  // A plan that is not refused does not tell how much there is: the adapter ran out below what it allows.
  const most = refused?.fits ? refused.bytes * LIKELY_SHARE : Number.POSITIVE_INFINITY;
  let fitting: { size: number; bytes: number } | undefined;
  // A microbatch of one row needs others in its update.
  const one = !usesPairs(method.objective) || method.options.gradient_accumulation_steps > 1;
  let [low, high] = [one ? 1 : 2, size - 1];
  while (low <= high) {
    const middle = Math.floor((low + high) / 2);
    const found = await plannedBytes(inputs, ofSize(method, middle), allocate);
    if (found?.fits && found.bytes <= most) {
      fitting = { size: middle, bytes: found.bytes };
      low = middle + 1;
    } else high = middle - 1;
  }
  const remedy = fitting
    ? `By the plan a per_device_train_batch_size of ${fitting.size} fits, with ${mebibytes(fitting.bytes)}`
    : "By the plan no per_device_train_batch_size fits: use a smaller max_length or model, or LoRA";
  return new AdapterError(`${error.message} ${remedy}.`, { cause: error });
}

/** The method with microbatches of `size` rows; with one row the reference point is taken over the whole update. */
export function ofSize(method: Method, size: number): Method {
  const options = { ...method.options, per_device_train_batch_size: size };
  return { ...method, options, referencePointScope: size === 1 ? "step" : method.referencePointScope };
}

/** Device bytes of a run, and whether the adapter would hold it; WebGPU does not tell how much memory it has. */
export interface Planned {
  readonly bytes: number;
  readonly fits: boolean;
}

/**
 * Counts a run, whether or not it fits; undefined where the adapter cannot run it for another reason.
 *
 * @param quantization of both models in place of their own
 */
export async function plannedBytes(
  inputs: RunInputs,
  method: Method,
  allocate: Allocate,
  quantization?: Quantization,
): Promise<Planned | undefined> {
  const device = planningDevice(inputs.policy.device, { countsOn: true });
  const { reference } = method;
  try {
    const policy = await planned(device, inputs.policy, "weights", quantization);
    const counted =
      reference instanceof Model ? await planned(device, reference, "reference weights", quantization) : reference;
    allocate({ ...inputs, policy }, { ...method, reference: counted });
    checkHostMemory(device);
    return { bytes: device.totalBytes, fits: device.refusals.length === 0 };
  } catch (error) {
    if (error instanceof AdapterError) return undefined;
    throw error;
  }
}

/** A model of the same sizes on a device that only counts what is allocated. */
async function planned(
  device: Device,
  { folder, numbers, layout, quantization: own, adapter }: Model,
  category: MemoryCategory,
  quantization: Quantization = own,
) {
  const onWarning = () => undefined; // said when the run's own models were loaded
  const options = { dtype: numbers, storage: layout.format, quantization, category, onWarning };
  const model = await Model.load(device, folder, options);
  return adapter ? model.withAdapter(LoraAdapter.create(device, model.config, adapter.options, adapter.folder)) : model;
}
