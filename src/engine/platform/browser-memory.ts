/**
 * Files in memory, where a path starts with "memory:": what a visitor gave to a page (a dropped folder is not copied,
 * but read where it lies), and what is written for them to download. They live as long as the page or worker.
 */
import { FileError } from "../../errors.ts";
import { MEMORY, partsOf } from "./browser-paths.ts";
import { blobFile, type PlatformFiles } from "./browser-web-files.ts";

/** By the path without its scheme; "" is the folder of all. */
const files = new Map<string, Blob>();
const folders = new Set<string>([""]);

/** A file that a visitor gave or a program made, with its path inside a folder, such as "sub/config.json". */
export type GivenFile = readonly [path: string, content: Blob];

/**
 * Makes a folder in memory that holds these files and nothing else, replacing one of that name.
 *
 * @returns its path, which every function takes that reads a folder: `Model.load`, `loadTokenizer`, `readFeedback` of
 * a file in it
 */
export function memoryFolder(name: string, given: Iterable<GivenFile>): string {
  const folder = keyOf(name);
  forget(folder);
  addFolders(folder);
  for (const [path, content] of given) {
    const key = `${folder}/${keyOf(path)}`;
    addFolders(parentOf(key));
    files.set(key, content);
  }
  return MEMORY + folder;
}

/** The files of a folder in memory with their paths inside it, in the order of these; none if there is no such folder. */
export function filesInMemory(folder: string): readonly GivenFile[] {
  const start = `${keyOf(folder)}/`;
  return [...files]
    .filter(([path]) => path.startsWith(start))
    .map(([path, content]): GivenFile => [path.slice(start.length), content])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

export const memoryFiles: PlatformFiles = {
  async exists(path) {
    const key = keyOf(path);
    if (files.has(key)) return "file";
    return folders.has(key) ? "folder" : undefined;
  },

  async list(folder) {
    const key = keyOf(folder);
    if (!folders.has(key)) throw new FileError(`Cannot list ${folder}: it does not exist.`);
    const start = key === "" ? "" : `${key}/`;
    const inside = [...files.keys(), ...folders].filter((path) => path.startsWith(start) && path.length > start.length);
    return [...new Set(inside.map((path) => path.slice(start.length).split("/", 1)[0] ?? ""))].sort();
  },

  openFile: async (path) => blobFile(path, opened("open", path)),
  readText: async (path) => await opened("read", path).text(),

  async makeFolder(path) {
    addFolders(keyOf(path));
  },

  async writeFileAtomic(path, chunks) {
    // Each chunk becomes a Blob at once: its bytes may be written over once the next one is asked for.
    const parts: Blob[] = [];
    for await (const chunk of typeof chunks === "string" ? [chunks] : chunks) parts.push(blobOf(chunk));
    put(path, new Blob(parts));
  },

  async append(path, content) {
    put(path, new Blob([files.get(keyOf(path)) ?? "", blobOf(content)]));
  },

  async removeFile(path) {
    files.delete(keyOf(path));
  },

  async removeFolder(path) {
    forget(keyOf(path));
  },

  async renameFolder(from, to) {
    const [before, after] = [keyOf(from), keyOf(to)];
    if (!folders.has(before)) throw new FileError(`Cannot rename the folder ${from}: it does not exist.`);
    const inside = filesInMemory(from);
    const empty = [...folders].filter((path) => path.startsWith(`${before}/`)).map((path) => path.slice(before.length));
    forget(before);
    memoryFolder(after, inside);
    for (const path of empty) addFolders(after + path);
  },

  async checkWritable(folder) {
    addFolders(keyOf(folder));
  },
};

function keyOf(path: string): string {
  return partsOf(path).join("/");
}

function parentOf(key: string): string {
  return key.slice(0, Math.max(0, key.lastIndexOf("/")));
}

function addFolders(key: string): void {
  for (let path = key; !folders.has(path); path = parentOf(path)) {
    if (files.has(path)) throw new FileError(`Cannot create the folder ${MEMORY}${key}: ${path} is a file.`);
    folders.add(path);
  }
}

function forget(key: string): void {
  const isInside = (path: string) => path === key || path.startsWith(`${key}/`);
  for (const path of [...files.keys()]) if (isInside(path)) files.delete(path);
  for (const path of [...folders]) if (path !== "" && isInside(path)) folders.delete(path);
}

function opened(action: string, path: string): Blob {
  const found = files.get(keyOf(path));
  if (found === undefined) throw new FileError(`Cannot ${action} ${path}: it does not exist.`);
  return found;
}

function put(path: string, content: Blob): void {
  const key = keyOf(path);
  if (!folders.has(parentOf(key))) throw new FileError(`Cannot write ${path}: its folder does not exist.`);
  files.set(key, content);
}

/** Blobs refuse views of shared memory, so bytes are copied. */
function blobOf(content: string | Uint8Array): Blob {
  return new Blob([typeof content === "string" ? content : new Uint8Array(content)]);
}
