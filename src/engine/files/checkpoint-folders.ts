/**
 * Checkpoint folders, `checkpoint-N` in the folder of a run: writes them under another name and renames them when
 * complete, lists them, checks them for damage, removes them when there are too many. Their content is up to the
 * writer, except for checksums.json, which holds the size and the SHA-256 of every other file.
 */
import * as z from "zod";
import { errorMessage, FileError } from "../../errors.ts";
import { platform } from "../platform/index.ts";

/** A complete checkpoint of a run. */
export interface CheckpointFolder {
  readonly path: string;
  /** N of checkpoint-N: the number of updates done. */
  readonly step: number;
}

export const CHECKSUMS_FILE = "checksums.json";

const NAME = /^checkpoint-(\d{1,15})$/;
/** Folders that are being written or removed; they are no checkpoints, whatever they hold. */
const TEMPORARY = /^\.checkpoint-\d+\.(writing|removing)$/;

/** Bytes of a file that are hashed at a time. */
const PIECE = 2 ** 22;

const fileSum = z.object({ bytes: z.number(), sha256: z.string() });
type FileSum = z.infer<typeof fileSum>;
/** By name; one with a path in it could point out of the folder. */
const checksums = z.object({ files: z.record(z.string().regex(/^[^/\\]+$/), fileSum) });

/** Whether this is the name of a folder that was being written or removed when its run ended. */
export function isCheckpointLeftover(name: string): boolean {
  return TEMPORARY.test(name);
}

/** The path of the checkpoint of a step. */
export function checkpointPath(runFolder: string, step: number): string {
  return platform.joinPath(runFolder, `checkpoint-${step}`);
}

/** The checkpoints of a run, the earliest first; none if the folder does not exist. */
export async function listCheckpoints(runFolder: string): Promise<CheckpointFolder[]> {
  if ((await platform.exists(runFolder)) !== "folder") return [];
  const found: CheckpointFolder[] = [];
  for (const name of await platform.list(runFolder)) {
    const step = NAME.exec(name)?.[1];
    const path = platform.joinPath(runFolder, name);
    if (step !== undefined && (await platform.exists(path)) === "folder") found.push({ path, step: Number(step) });
  }
  return found.sort((a, b) => a.step - b.step);
}

/**
 * Writes the checkpoint of a step as a whole or not at all. It replaces an earlier checkpoint of the same step.
 *
 * @param write puts files, but no folders, into the folder that it is given
 * @returns the folder of the checkpoint
 * @throws FileError if a file cannot be written, after which nothing of the checkpoint is left; what `write` throws
 */
export async function writeCheckpointFolder(
  runFolder: string,
  step: number,
  write: (folder: string) => Promise<void>,
): Promise<string> {
  const folder = platform.joinPath(runFolder, `.checkpoint-${step}.writing`);
  const path = checkpointPath(runFolder, step);
  try {
    await platform.removeFolder(folder);
    await platform.makeFolder(folder);
    await write(folder);
    const files: Record<string, FileSum> = {};
    // Read back from the disk, so that a disk that loses data is noticed now and not when the checkpoint is needed.
    for (const name of await platform.list(folder)) files[name] = await sumOf(platform.joinPath(folder, name));
    const text = `${JSON.stringify({ files }, null, 2)}\n`;
    await platform.writeFileAtomic(platform.joinPath(folder, CHECKSUMS_FILE), text);
    await removeCheckpoint(runFolder, step);
    await platform.renameFolder(folder, path);
  } catch (error) {
    await platform.removeFolder(folder).catch(() => undefined);
    throw error;
  }
  return path;
}

/** Renames the checkpoint before it removes it, so that a half-removed one is not taken for a checkpoint. */
async function removeCheckpoint(runFolder: string, step: number): Promise<void> {
  const path = checkpointPath(runFolder, step);
  if ((await platform.exists(path)) === undefined) return;
  const going = platform.joinPath(runFolder, `.checkpoint-${step}.removing`);
  await platform.removeFolder(going);
  await platform.renameFolder(path, going);
  await platform.removeFolder(going);
}

/**
 * Removes the earliest checkpoints beyond `limit`.
 *
 * @param kept steps whose checkpoints stay: the last good one, the best one
 */
export async function pruneCheckpoints(runFolder: string, limit: number, kept: readonly number[]): Promise<void> {
  const present = await listCheckpoints(runFolder);
  let tooMany = present.length - limit;
  for (const { step } of present) {
    if (tooMany <= 0) break;
    if (kept.includes(step)) continue;
    await removeCheckpoint(runFolder, step);
    tooMany--;
  }
}

/** Removes the folders that a killed run has left half written. */
export async function removeLeftovers(runFolder: string): Promise<void> {
  if ((await platform.exists(runFolder)) !== "folder") return;
  for (const name of await platform.list(runFolder)) {
    if (isCheckpointLeftover(name)) await platform.removeFolder(platform.joinPath(runFolder, name));
  }
}

/** Removes all checkpoints of a run, half-written ones included. */
export async function removeCheckpoints(runFolder: string): Promise<void> {
  await pruneCheckpoints(runFolder, 0, []);
  await removeLeftovers(runFolder);
}

/** The damage to a checkpoint's files, in words that follow "is damaged: "; undefined if they are as written. */
export async function checkpointDamage(folder: string): Promise<string | undefined> {
  try {
    const path = platform.joinPath(folder, CHECKSUMS_FILE);
    if ((await platform.exists(path)) !== "file") return `it has no ${CHECKSUMS_FILE}`;
    const sums = parseSums(await platform.readText(path));
    if (sums === undefined) return `its ${CHECKSUMS_FILE} cannot be read`;
    for (const [name, { bytes, sha256 }] of sums) {
      const file = platform.joinPath(folder, name);
      if ((await platform.exists(file)) !== "file") return `its ${name} is missing`;
      const found = await sumOf(file, bytes);
      if (found.bytes !== bytes) return `its ${name} has ${found.bytes} bytes and should have ${bytes}`;
      if (found.sha256 !== sha256) return `its ${name} does not hold what was written`;
    }
    return undefined;
  } catch (error) {
    if (error instanceof FileError) return errorMessage(error).replace(/\.$/, "");
    throw error;
  }
}

/** Names in a good checkpoint that its checksums do not list: put there after it was written. */
export async function unlistedFiles(folder: string): Promise<string[]> {
  const sums = parseSums(await platform.readText(platform.joinPath(folder, CHECKSUMS_FILE))) ?? [];
  const listed = new Set([CHECKSUMS_FILE, ...sums.map(([name]) => name)]);
  return (await platform.list(folder)).filter((name) => !listed.has(name));
}

function parseSums(text: string): [name: string, sum: FileSum][] | undefined {
  try {
    const entries = Object.entries(checksums.parse(JSON.parse(text)).files);
    return entries.length > 0 ? entries : undefined;
  } catch {
    return undefined;
  }
}

/** @param wanted the expected size; a file of another size is not hashed */
async function sumOf(path: string, wanted?: number): Promise<FileSum> {
  const file = await platform.openFile(path);
  try {
    const { size } = file;
    if (wanted !== undefined && wanted !== size) return { bytes: size, sha256: "" };
    const hash = platform.sha256();
    for (let at = 0; at < size; at += PIECE) hash.update(await file.read(at, Math.min(PIECE, size - at)));
    return { bytes: size, sha256: hash.digest() };
  } finally {
    await file.close();
  }
}
