/** The commit of a checkout. Apart from the versions, since the help of a command waits for no module that starts processes. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageFolder } from "./node-package.ts";

/** The commit, marked where files differ from it; null outside a checkout. */
export function commit(): string | null {
  const folder = packageFolder;
  if (!existsSync(join(folder, ".git"))) return null; // an installed package lies in somebody else's repository
  const git = (...args: string[]) =>
    execFileSync("git", args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    return git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain") === "" ? "" : " with changes");
  } catch {
    return null;
  }
}
