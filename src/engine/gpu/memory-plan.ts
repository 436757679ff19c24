/**
 * A device that only counts: everything that allocates on it is counted as on the real one, and nothing is held or run. It
 * is how a run's memory is known before the run, by the same code that will allocate it.
 */
import { Device } from "./device.ts";

/** A counting device with the limits and features of a real one. */
export function planningDevice(device: Device): Device {
  const { features } = device.gpu;
  const nothing = () => undefined;
  const stand: Partial<Record<keyof GPUDevice, unknown>> = {
    limits: device.limits,
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
