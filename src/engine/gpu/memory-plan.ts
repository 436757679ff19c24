/**
 * A device that only counts: what allocates on it is counted as on the real one, but nothing is held or run. The code
 * that will allocate a run tells in this way, before the run, how much memory it takes.
 */
import { Device } from "./device.ts";

/** A counting device with the features of a real one, and its limits or others. */
export function planningDevice(device: Device, limits: GPUSupportedLimits = device.limits): Device {
  const { features } = device.gpu;
  const nothing = () => undefined;
  const stand: Partial<Record<keyof GPUDevice, unknown>> = {
    limits,
    features,
    lost: new Promise<never>(nothing),
    addEventListener: nothing,
    destroy: nothing,
    createBuffer: () => ({ destroy: nothing }),
    createCommandEncoder: () => ({ copyBufferToBuffer: nothing, clearBuffer: nothing, finish: nothing }),
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: async () => undefined },
  };
  return Device.counting(device, stand as unknown as GPUDevice);
}
