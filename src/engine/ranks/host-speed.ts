/** How fast the host moves gradients between device and other ranks, for plans of runs by more ranks. */
import type { Device } from "../gpu/device.ts";
import { Staging } from "../gpu/staging.ts";
import { ALONE } from "./communicator.ts";
import { Scratch, sumSlice } from "./sums.ts";

/** Elements of the piece that is timed. */
const SIZE = 2 ** 22;

/** Bytes a second of what a rank does with a piece of gradients: reads it back, adds it up, writes the sums. */
export async function hostSpeed(device: Device): Promise<number> {
  const tensor = device.allocate("gradients", "piece of gradients", [SIZE]);
  const scratch = new Scratch();
  const staging = new Staging(device);
  try {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 4; round++) {
      await device.idle();
      const started = performance.now();
      const own = await staging.readInto([tensor], scratch.f32("numbers", SIZE));
      staging.write([tensor], await sumSlice(ALONE, own, [0, SIZE], scratch.f32("sums", SIZE), scratch));
      await device.idle();
      best = Math.min(best, performance.now() - started);
    }
    return (4 * SIZE) / (best / 1000);
  } finally {
    staging.free();
    device.free(tensor);
  }
}
