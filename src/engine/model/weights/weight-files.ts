/**
 * The weight files of a Hugging Face folder as one table of tensors: model.safetensors, or shards with an index that
 * says which file holds which tensor. Codes and scales that bitsandbytes saved are one tensor. Reads by ranges, writes
 * in shards of a chosen size. Not what the tensors mean.
 */
import { ModelFormatError, shown } from "../../../errors.ts";
import { isJsonObject, parseJsonObject, readModelText } from "../../files/json-file.ts";
import {
  openSafetensors,
  type SafetensorsFile,
  type TensorToWrite,
  writeSafetensors,
} from "../../files/safetensors.ts";
import { elementBytes, elementCount } from "../../gpu/tensor.ts";
import { type FileSource, platform } from "../../platform/index.ts";
import { withSavedCodes } from "./bitsandbytes.ts";
import type { WeightTensor } from "./weight-tensor.ts";

export const WEIGHTS_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";
const SHARD_NAME = /^model-\d{5}-of-\d{5}\.safetensors$/;

/** The open weight files of a folder. */
export interface WeightFiles {
  /** The file to name where no single tensor is at fault: the weights, or the index of the shards. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, WeightTensor>;
  close(): Promise<void>;
}

/**
 * Opens the weights of a model folder. model.safetensors goes before shards, as in Hugging Face's own loader.
 *
 * @param source where the weight files are; the index of shards is always in the folder itself
 * @throws ModelFormatError naming the file: no weights, a malformed index, a shard that is missing or lacks a tensor
 * that the index finds in it, a tensor in two shards, a quantised tensor that cannot be read
 */
export async function openWeights(folder: string, source: FileSource = platform): Promise<WeightFiles> {
  const single = platform.joinPath(folder, WEIGHTS_FILE);
  if ((await source.exists(single)) === "file") {
    const file = await openSafetensors(single, source);
    try {
      return { path: single, tensors: await withSavedCodes(tensorTable([file])), close: () => file.close() };
    } catch (error) {
      await file.close();
      throw error;
    }
  }
  const index = platform.joinPath(folder, INDEX_FILE);
  if ((await platform.exists(index)) === "file") return openShards(folder, index, source);
  const names = await source.list(folder);
  const hint = names.some((name) => SHARD_NAME.test(name))
    ? `it holds shards without ${INDEX_FILE}, so a download or a save was broken off`
    : names.some((name) => name.endsWith(".bin") || name.endsWith(".pt"))
      ? "it holds PyTorch files; save it as safetensors"
      : "there are no weights to load";
  throw new ModelFormatError(`The model folder "${folder}" has no ${WEIGHTS_FILE}: ${hint}.`);
}

async function openShards(folder: string, index: string, source: FileSource): Promise<WeightFiles> {
  const map = parseIndex(await readModelText(index), index);
  const names = [...new Set(map.values())].sort();
  const files: SafetensorsFile[] = [];
  const close = async () => {
    for (const file of files) await file.close();
  };
  try {
    for (const name of names) {
      const path = platform.joinPath(folder, name);
      if ((await source.exists(path)) !== "file") {
        const tensor = [...map].find(([, file]) => file === name)?.[0];
        throw new ModelFormatError(
          `${index} finds tensor "${tensor}" in ${name}, but that shard is missing; download it again.`,
        );
      }
      files.push(await openSafetensors(path, source));
    }
    const tensors = tensorTable(files);
    for (const [tensor, name] of map) {
      const found = tensors.get(tensor);
      if (found === undefined || platform.baseName(found.file.path) !== name) {
        throw new ModelFormatError(
          `${index} finds tensor "${tensor}" in ${name}, but ${found === undefined ? "no shard has it" : `it is in ${platform.baseName(found.file.path)}`}.`,
        );
      }
    }
    return { path: index, tensors: await withSavedCodes(tensors), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The tensors of open files by name. Throws ModelFormatError for a name that two files hold. */
export function tensorTable(files: readonly SafetensorsFile[]): Map<string, WeightTensor> {
  const table = new Map<string, WeightTensor>();
  for (const file of files) {
    for (const [name, entry] of file.tensors) {
      const other = table.get(name);
      if (other !== undefined) {
        throw new ModelFormatError(`Tensor "${name}" is both in ${other.file.path} and in ${file.path}.`);
      }
      table.set(name, { ...entry, file });
    }
  }
  return table;
}

/** Tensor names to shard names. */
function parseIndex(text: string, path: string): Map<string, string> {
  const map = parseJsonObject(text, path).weight_map;
  if (!isJsonObject(map) || Object.keys(map).length === 0) {
    throw new ModelFormatError(`${path}: "weight_map" is missing or is no object from tensor names to file names.`);
  }
  for (const [tensor, name] of Object.entries(map)) {
    // A name with a path in it could point out of the folder.
    if (typeof name !== "string" || !/^[^/\\]+\.safetensors$/.test(name)) {
      throw new ModelFormatError(
        `${path}: tensor "${tensor}" is mapped to ${shown(name)}, not to the name of a .safetensors file beside it.`,
      );
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}

/**
 * Writes tensors into a folder, in their order: one model.safetensors, or, if they take more than `maxShardBytes`,
 * model-00001-of-0000N.safetensors and an index, split between tensors. Weight files of the other kind that lie in the
 * folder are removed afterwards, since a loader would take those. Shards that replace others of the same names do so
 * one by one: the old index goes first and the new one comes last, so that a folder left in between has no weights to
 * load, instead of a mixture.
 *
 * @throws FileError; what a tensor's own data throws
 */
export async function writeWeights(
  folder: string,
  tensors: readonly TensorToWrite[],
  maxShardBytes: number = Number.POSITIVE_INFINITY,
): Promise<void> {
  const shards = shardsOf(tensors, maxShardBytes);
  const digits = (count: number) => String(count).padStart(5, "0");
  const nameOf = (shard: number) =>
    shards.length === 1 ? WEIGHTS_FILE : `model-${digits(shard + 1)}-of-${digits(shards.length)}.safetensors`;
  if (shards.length > 1) await platform.removeFile(platform.joinPath(folder, INDEX_FILE));
  const written = new Set(shards.length === 1 ? [WEIGHTS_FILE] : [INDEX_FILE]);
  for (const [shard, group] of shards.entries()) {
    await writeSafetensors(platform.joinPath(folder, nameOf(shard)), group, { format: "pt" });
    written.add(nameOf(shard));
  }
  if (shards.length > 1) {
    const map = shards.flatMap((group, shard) => group.map(({ name }) => [name, nameOf(shard)] as const));
    const index = {
      metadata: { total_size: tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0) },
      weight_map: Object.fromEntries(map.sort(([a], [b]) => (a < b ? -1 : 1))),
    };
    await platform.writeFileAtomic(platform.joinPath(folder, INDEX_FILE), `${JSON.stringify(index, null, 2)}\n`);
  }
  for (const name of await platform.list(folder)) {
    const weights = name === WEIGHTS_FILE || name === INDEX_FILE || SHARD_NAME.test(name);
    if (weights && !written.has(name)) await platform.removeFile(platform.joinPath(folder, name));
  }
}

function shardsOf(tensors: readonly TensorToWrite[], maxShardBytes: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [];
  let room = 0;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor);
    const last = shards.at(-1);
    if (last === undefined || bytes > room) {
      shards.push([tensor]);
      room = maxShardBytes - bytes;
    } else {
      last.push(tensor);
      room -= bytes;
    }
  }
  return shards.length === 0 ? [[]] : shards;
}

function bytesOf({ shape, format = "f32" }: Pick<TensorToWrite, "shape" | "format">): number {
  return elementCount(shape) * elementBytes(format);
}
