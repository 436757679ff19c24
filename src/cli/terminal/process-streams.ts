/**
 * What happens when stdout or stderr of this process takes no more: its reader has gone (`| head`, a killed `tee`, a
 * closed terminal) or its disk is full. Node would end the process at once, and a training with it.
 */
import { fileError } from "../../engine/platform/node-errors.ts";
import type { FileError } from "../../errors.ts";

/**
 * Drops what stderr cannot take, and tells of the first text that stdout cannot take. Call it once.
 *
 * @param onLostResult is given undefined where nobody reads stdout any more
 */
export function guardProcessStreams(onLostResult: (error: FileError | undefined) => void): void {
  process.stderr.on("error", () => {});
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    onLostResult(error.code === "EPIPE" ? undefined : fileError("write to", "stdout", error));
  });
}
