/**
 * A device that only counts: what allocates on it is counted as on the real one, but nothing is held or run. The code
 * that will allocate a run tells in this way, before the run, how much memory it takes.
 */
import { Device } from "./device.ts";

/**
 * A counting device with the limits and features of a real one.
 *
 * @param countsOn counts on behind what the adapter cannot hold, which `refusals` then has, in place of throwing it
 */
export function planningDevice(device: Device, { countsOn = false } = {}): Device {
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
  return Device.counting(device, stand as unknown as GPUDevice, countsOn);
}
