/** Which code was measured. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageFolder } from "./commands/doctor.ts";

/** The commit, marked where files differ from it; null outside a checkout. */
export function commit(): string | null {
  const folder = packageFolder();
  if (!existsSync(join(folder, ".git"))) return null; // an installed package lies in somebody else's repository
  const git = (...args: string[]) =>
    execFileSync("git", args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    return git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain") === "" ? "" : " with changes");
  } catch {
    return null;
  }
}
