/** Checks the tensors of weight files against a configuration (names, shapes, dtypes) and against each other. */
import { counted, ModelFormatError } from "../../../errors.ts";
import type { StoredFormat } from "../../../kernels/kernel.ts";
import { type SafetensorsFile, storedFormat } from "../../files/safetensors.ts";
import { elementCount } from "../../gpu/tensor.ts";
import { toF32 } from "../../number-formats.ts";
import type { ModelConfig } from "../config/config.ts";
import { parameterSpecs, storedNaming } from "./parameters.ts";
import type { WeightFiles } from "./weight-files.ts";

/**
 * Every parameter must be there in its shape and a dtype that can be read, and nothing else may be. Gives the prefix of
 * the names and what the matrices that are not quantised are stored as, f32 where they differ.
 */
export function checkTensors(config: ModelConfig, files: WeightFiles): { prefix: string; stored: StoredFormat } {
  const { prefix, fullName, ignorable } = storedNaming(config, files.tensors.keys());
  if (config.layers > files.tensors.size) {
    throw new ModelFormatError(
      `${files.path} holds ${counted(files.tensors.size, "tensor")}, too few for the ${counted(config.layers, "layer")} of config.json.`,
    );
  }
  const wanted = new Set<string>();
  const formats = new Set<StoredFormat>();
  const parts = parameterSpecs(config).flatMap(({ shape, parts }) => parts.map((part) => ({ ...part, of: shape })));
  for (const part of parts) {
    const name = fullName(part.name);
    wanted.add(name);
    const found = files.tensors.get(name);
    if (found === undefined) {
      throw new ModelFormatError(`${files.path}: tensor "${name}" [${part.shape.join(", ")}] is missing.`);
    }
    if (found.shape.length !== part.shape.length || found.shape.some((size, axis) => size !== part.shape[axis])) {
      throw new ModelFormatError(
        `${found.file.path}: tensor "${name}" has shape [${found.shape.join(", ")}], but config.json makes it [${part.shape.join(", ")}].`,
      );
    }
    if (found.saved !== undefined) continue;
    const format = storedFormat(found.file.path, name, found.dtype);
    if (part.of.length > 1) formats.add(format);
  }
  for (const [name, { file }] of files.tensors) {
    if (!wanted.has(name) && !ignorable(name)) {
      throw new ModelFormatError(
        `${file.path}: tensor "${name}" does not belong to a ${config.modelType} model of ${config.layers} layers as config.json describes it.`,
      );
    }
  }
  const [stored = "f32"] = formats;
  return { prefix, stored: formats.size === 1 ? stored : "f32" };
}

/**
 * A sentence on an lm_head that is ignored: config.json ties the head to the embedding, and the weight files hold a
 * head with other numbers. Transformers 4 ties them all the same; undefined where there is none, or the same one.
 */
export async function ignoredHead(config: ModelConfig, files: WeightFiles): Promise<string | undefined> {
  const { fullName } = storedNaming(config, files.tensors.keys());
  const headName = fullName("lm_head.weight");
  const head = files.tensors.get(headName);
  if (!config.tiedHead || head === undefined) return undefined;
  const embeddingName = fullName(parameterSpecs(config)[0]?.parts[0]?.name ?? "");
  const embedding = files.tensors.get(embeddingName);
  if (embedding && (await sameNumbers(head.file, headName, embedding.file, embeddingName))) return undefined;
  return `${head.file.path}: tensor "${headName}" differs from "${embeddingName}", but config.json ties the two: the head is ignored and the embedding used in its place, as in transformers 4; set tie_word_embeddings to false in config.json to use the head, as transformers 5 does.`;
}

/** Elements of two tensors that are compared at once. */
const PIECE = 2 ** 20;

/** Do two tensors of files have the same shape and the same numbers, in whatever format they are stored? */
export async function sameNumbers(
  firstFile: SafetensorsFile,
  firstName: string,
  secondFile: SafetensorsFile,
  secondName: string,
): Promise<boolean> {
  const sides = [
    { file: firstFile, name: firstName },
    { file: secondFile, name: secondName },
  ];
  const entries = sides.map(({ file, name }) => file.tensors.get(name));
  const [shape = [], otherShape = []] = entries.map((entry) => entry?.shape);
  if (shape.join() !== otherShape.join()) return false;
  const count = elementCount(shape);
  for (let from = 0; from < count; from += PIECE) {
    const [values, others] = await Promise.all(
      sides.map(async ({ file, name }, side) => {
        const bytes = await file.read(name, from, Math.min(PIECE, count - from));
        return toF32(bytes, storedFormat(file.path, name, entries[side]?.dtype ?? ""));
      }),
    );
    if (!values?.every((value, i) => value === others?.[i])) return false;
  }
  return true;
}
