/** A process that takes a held file whenever it is told to, answers whether it has it, and gives it back when told. */
import { holdFile } from "../../src/engine/platform/node-held-files.ts";

let release: (() => void) | undefined;

process.on("message", async (path: string) => {
  if (path === "release") {
    release?.();
    release = undefined;
    process.send?.("released");
    return;
  }
  const found = await holdFile(path);
  release = "release" in found ? found.release : undefined;
  process.send?.(release === undefined ? "refused" : "held");
});
process.send?.("ready");
