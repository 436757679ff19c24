/**
 * Commands that run in this process on the device of the whole test run, whose kernels are compiled once: SwiftShader
 * takes most of a minute to compile a training step. What a command would have given back by closing its device is
 * freed. Files that use it still open the adapters that they name themselves.
 */
import { afterAll, beforeAll, vi } from "vitest";
import { Device } from "../../src/engine/gpu/device.ts";
import type { Tensor } from "../../src/engine/gpu/tensor.ts";
import { sharedDevice } from "./device.ts";

/** Call at the top of a test file. */
export function shareDeviceWithCommands(): void {
  const restore: (() => void)[] = [];

  beforeAll(async () => {
    const device = await sharedDevice();
    const chosen = process.env.KTO_ADAPTER;
    const [open, allocate] = [Device.open.bind(Device), device.allocate.bind(device)];
    let held: Tensor[] = [];
    const spies = [
      vi.spyOn(Device, "open").mockImplementation(async (options = {}) => {
        return options.adapter === undefined && process.env.KTO_ADAPTER === chosen ? device : await open(options);
      }),
      vi.spyOn(device, "allocate").mockImplementation((...request) => {
        const tensor = allocate(...request);
        held.push(tensor);
        return tensor;
      }),
      vi.spyOn(device, "close").mockImplementation(() => {
        for (const tensor of held) device.free(tensor);
        held = [];
      }),
    ];
    for (const spy of spies) restore.push(() => spy.mockRestore());
  });

  afterAll(() => {
    for (const undo of restore) undo();
  });
}
