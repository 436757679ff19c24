/** The optional JSON files of a model folder. */
import { errorMessage, ModelFormatError } from "../../errors.ts";
import { platform } from "../platform/index.ts";

export type JsonObject = Record<string, unknown>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * What a file holds; undefined if there is no such file.
 *
 * @throws ModelFormatError if it is not JSON, or not an object
 */
export async function readJsonObject(path: string): Promise<JsonObject | undefined> {
  if ((await platform.exists(path)) !== "file") return undefined;
  let json: unknown;
  try {
    json = JSON.parse(await platform.readText(path));
  } catch (error) {
    throw new ModelFormatError(`${path} cannot be read as JSON: ${errorMessage(error)}.`, { cause: error });
  }
  if (isJsonObject(json)) return json;
  throw new ModelFormatError(`${path} does not hold a JSON object.`);
}
