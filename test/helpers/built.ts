/**
 * The built code, for processes that a test starts: each would translate the sources once more, which takes it a second
 * or two.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const root = join(import.meta.dirname, "..", "..");
let isBuilt = false;

/** The address of the module that was built from a source, such as "src/index.ts"; built first where it changed. */
export function builtModule(source: string): string {
  if (!isBuilt) {
    const { status, stderr } = spawnSync(process.execPath, [join(root, "bin", "kto.js"), "--version"], {
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`the code cannot be built: ${stderr}`);
    isBuilt = true;
  }
  return pathToFileURL(join(root, "dist", source.replace(/\.ts$/, ".js"))).href;
}
