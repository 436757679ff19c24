/** The version of this package, and those of the packages that it needs. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { packageFolder } from "./node-package.ts";

interface PackageManifest {
  readonly name: string;
  readonly version: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

export function ownManifest(): PackageManifest {
  return readManifest(join(packageFolder, "package.json"));
}

/** Versions of this package and of those that it needs; null for one that is not installed. */
export function installedVersions(): Record<string, string | null> {
  const own = ownManifest();
  const names = Object.keys(own.dependencies ?? {});
  return { [own.name]: own.version, ...Object.fromEntries(names.map((name) => [name, installedVersion(name)])) };
}

/** By looking into the folders, since a package's "exports" may hide its package.json. */
export function installedVersion(name: string): string | null {
  for (const folder of createRequire(import.meta.url).resolve.paths(name) ?? []) {
    try {
      return readManifest(join(folder, name, "package.json")).version;
    } catch {
      // Not in this folder; the next one up is tried.
    }
  }
  return null;
}

function readManifest(path: string): PackageManifest {
  return JSON.parse(readFileSync(path, "utf8")) as PackageManifest;
}
