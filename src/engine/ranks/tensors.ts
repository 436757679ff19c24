/** Device memory of rank 0 copied to all ranks, as it was read from a file that the others need not have. */
import type { Arena } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import { byteLength, type Tensor } from "../gpu/tensor.ts";
import type { Communicator } from "./communicator.ts";
import { bytesFromFirst } from "./sums.ts";

/** Words that are on the host at once. */
const PIECE_WORDS = 2 ** 22;

/** Gives every rank the bytes of rank 0's tensors, which have the same shapes everywhere. */
export async function tensorsFromFirst(ranks: Communicator, device: Device, tensors: readonly Tensor[]): Promise<void> {
  if (ranks.size === 1) return;
  for (const tensor of tensors) {
    const words = byteLength(tensor) / 4;
    for (let at = 0; at < words; at += PIECE_WORDS) {
      const shape = [Math.min(PIECE_WORDS, words - at)];
      const piece: Tensor = { buffer: tensor.buffer, dtype: "u32", offset: tensor.offset + 4 * at, shape };
      const own = ranks.rank === 0 ? new Uint8Array(await device.downloadBytes(piece)) : undefined;
      const bytes = await bytesFromFirst(ranks, own);
      if (own === undefined) device.upload(piece, new Uint8Array(bytes));
    }
  }
}

/** Gives every rank the bytes of rank 0's arena; all ranks have the same layout. */
export async function arenaFromFirst(ranks: Communicator, { device, segments }: Arena): Promise<void> {
  await tensorsFromFirst(ranks, device, segments);
}
