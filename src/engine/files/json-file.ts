/** The text files of a model folder, most of them JSON objects. What their keys mean is up to whoever reads them. */
import { errorMessage, ModelFormatError } from "../../errors.ts";
import { platform } from "../platform/index.ts";
import { LFS_POINTER_LENGTH, refuseLfsPointer } from "./lfs-pointer.ts";

export type JsonObject = Record<string, unknown>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * A text file of a model folder, without the byte-order mark that some editors put before it.
 *
 * @throws ModelFormatError for a Git LFS pointer and for UTF-16; FileError if the file cannot be read
 */
export async function readModelText(path: string): Promise<string> {
  const text = await platform.readText(path);
  refuseLfsPointer(path, text.slice(0, LFS_POINTER_LENGTH));
  // The byte-order mark of UTF-16, read as UTF-8.
  if (text.startsWith("\uFFFD\uFFFD")) throw new ModelFormatError(`${path} is not UTF-8 text; save it as UTF-8.`);
  return text.replace(/^\uFEFF/, "");
}

/** Levels of a file whose values are compared and copied by recursion. No such file has more than a few. */
const DEEPEST = 200;

/** Whether a value has lists and objects on more levels than these. */
export function depthExceeds(value: unknown, limit: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return limit === 0 || Object.values(value).some((item) => depthExceeds(item, limit - 1));
}

/**
 * The values of a JSON file that go through recursion afterwards.
 *
 * @throws ModelFormatError naming the file if the text is not JSON, or nested deeper than any such file is
 */
export function parseShallowJson(text: string, path: string): unknown {
  const json = parseJson(text, path);
  if (!depthExceeds(json, DEEPEST)) return json;
  throw new ModelFormatError(`${path} cannot be used: its values are nested more than ${DEEPEST} levels deep.`);
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ModelFormatError(`${path} is not valid JSON: ${errorMessage(error)}.`, { cause: error });
  }
}

/** @throws ModelFormatError naming the file if the text is not JSON, or not an object */
export function parseJsonObject(text: string, path: string): JsonObject {
  const json = parseJson(text, path);
  if (isJsonObject(json)) return json;
  throw new ModelFormatError(`${path} does not hold a JSON object.`);
}

/**
 * The object that a JSON file of a model folder holds; undefined if there is no such file.
 *
 * @throws ModelFormatError if the file is no JSON object
 */
export async function readJsonObject(path: string): Promise<JsonObject | undefined> {
  if ((await platform.exists(path)) !== "file") return undefined;
  return parseJsonObject(await readModelText(path), path);
}
