/**
 * A process that takes a held file whenever it is told to, answers whether it has it, and gives it back when told. Its
 * argument is the address of the built platform.
 */
const { platform } = await import(process.argv[2] ?? "");

let release;

process.on("message", async (path) => {
  if (path === "release") {
    release?.();
    release = undefined;
    process.send?.("released");
    return;
  }
  const found = await platform.holdFile(path);
  release = "release" in found ? found.release : undefined;
  process.send?.(release === undefined ? "refused" : "held");
});
process.send?.("ready");
