/** Paths of the browser platform that are no URLs: "opfs:a/b" in the private file system, "memory:a/b" in memory. */

/** The origin's private file system. */
export const OPFS = "opfs:";
/** Files that a page has in memory. */
export const MEMORY = "memory:";

export function isInMemory(path: string): boolean {
  return path.startsWith(MEMORY);
}

/** The names of a path behind its scheme, without empty ones. */
export function partsOf(path: string): string[] {
  return path
    .replace(/^(opfs|memory):/, "")
    .split("/")
    .filter((part) => part !== "" && part !== ".");
}

export function baseName(path: string): string {
  const parts = /^(opfs|memory):/.test(path) ? partsOf(path) : path.replace(/[?#].*$/, "").split("/");
  return parts.filter((part) => part !== "").at(-1) ?? "";
}
