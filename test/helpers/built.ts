/**
 * The built code, for processes that a test starts: each would translate the sources once more, which takes it a second
 * or two.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const root = join(import.meta.dirname, "..", "..");
let isBuilt = false;

/** The address of a module of the build, an entry of scripts/build.mjs; built first where a source changed. */
export function builtModule(name: "index" | "platform-node"): string {
  if (!isBuilt) {
    const { status, stderr } = spawnSync(process.execPath, [join(root, "bin", "kto.js"), "--version"], {
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`the code cannot be built: ${stderr}`);
    isBuilt = true;
  }
  return pathToFileURL(join(root, "dist", `${name}.js`)).href;
}
