/** How fast the host moves gradients between device and other ranks, for plans of runs by more ranks. */
import type { Device } from "../gpu/device.ts";
import { ALONE } from "./communicator.ts";
import { Scratch, sumSlice } from "./sums.ts";

/** Elements of the piece that is timed. */
const SIZE = 2 ** 22;

/** Bytes a second of what a rank does with a piece of gradients: reads it back, adds it up, writes the sums. */
export async function hostSpeed(device: Device): Promise<number> {
  const tensor = device.allocate("gradients", "piece of gradients", [SIZE]);
  const scratch = new Scratch();
  try {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 4; round++) {
      await device.idle();
      const started = performance.now();
      const own = await device.download(tensor);
      device.upload(tensor, scratch.rounded(await sumSlice(ALONE, own, [0, SIZE], scratch)));
      await device.idle();
      best = Math.min(best, performance.now() - started);
    }
    return (4 * SIZE) / (best / 1000);
  } finally {
    device.free(tensor);
  }
}
