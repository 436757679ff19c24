/** Whether a checkpoint's tensors are those of a configuration: names, shapes, dtypes. */
import { counted, ModelFormatError } from "../../../errors.ts";
import type { StoredFormat } from "../../../kernels/kernel.ts";
import { storedFormat } from "../../files/safetensors.ts";
import type { ModelConfig } from "../config/config.ts";
import type { CheckpointFiles } from "./checkpoint-files.ts";
import { checkpointNaming, parameterSpecs } from "./parameters.ts";

/**
 * Every parameter must be there in its shape and a dtype that can be read, and nothing else may be. Gives the prefix of
 * the names and what the matrices are stored as, f32 where they differ.
 */
export function checkTensors(config: ModelConfig, files: CheckpointFiles): { prefix: string; stored: StoredFormat } {
  const { prefix, fullName, ignorable } = checkpointNaming(config, files.tensors.keys());
  if (config.layers > files.tensors.size) {
    throw new ModelFormatError(
      `${files.path} holds ${counted(files.tensors.size, "tensor")}, too few for the ${counted(config.layers, "layer")} of config.json.`,
    );
  }
  const wanted = new Set<string>();
  const formats = new Set<StoredFormat>();
  for (const part of parameterSpecs(config).flatMap(({ parts }) => parts)) {
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
    const format = storedFormat(found.file.path, name, found.dtype);
    if (part.shape.length > 1) formats.add(format);
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
