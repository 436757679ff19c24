/**
 * Loads LoRA adapters from PEFT's folders onto the device of their base model, and saves them. The two files of a
 * folder are read in `peft-config.ts` and `peft-tensors.ts`.
 */
import { ConfigError } from "../../errors.ts";
import { writeSafetensors } from "../files/safetensors.ts";
import { platform } from "../platform/index.ts";
import { textFolder, writeTokenizerFiles } from "./config/folder.ts";
import { LoraAdapter } from "./lora.ts";
import type { Model } from "./model.ts";
import { ADAPTER_CONFIG, adapterConfig } from "./peft-config.ts";
import { ADAPTER_WEIGHTS, openAdapter, peftName } from "./peft-tensors.ts";
import { arenaPieces, finitePieces } from "./weights/weight-transfer.ts";

/** The name under which a file holds a parameter that is trained: in a model's own folder, or PEFT's of an adapter. */
export function trainedName(model: Model, part: string): string {
  return model.adapter ? writtenName(model, model.adapter, part) : model.storedName(part);
}

/** PEFT's name of a tensor in a file: the bias of a layer with an adapter is the wrapped layer's. */
function writtenName({ config }: Model, { modules }: LoraAdapter, part: string): string {
  const name = peftName(config, part);
  const isOfTarget = modules.some((module) => part === `${module.name}.bias`);
  return isOfTarget ? name.replace(/\.bias$/, ".base_layer.bias") : name;
}

/**
 * Loads an adapter onto the device of its base model, whose layers must be those that it was made for. The adapter is
 * its caller's to free; `model.withAdapter` puts it to use.
 *
 * @param options.onWarning takes sentences on what the folder holds beside the adapter; default console.warn
 * @throws FileError; ModelFormatError naming the file, and the key or the tensor that is missing, left over, of another
 * shape or not supported
 */
export async function loadAdapter(
  model: Model,
  folder: string,
  { onWarning = console.warn }: { readonly onWarning?: (sentence: string) => void } = {},
): Promise<LoraAdapter> {
  const file = await openAdapter(folder, model, onWarning);
  try {
    const adapter = LoraAdapter.create(model.device, model.config, file.options, folder);
    try {
      await adapter.readBase(model);
      for (const part of adapter.parts()) {
        if (!file.has(part.name)) continue;
        model.device.upload(adapter.weights.at(part, part.shape), await file.read(part.name));
      }
      return adapter;
    } catch (error) {
      adapter.free();
      throw error;
    }
  } finally {
    await file.close();
  }
}

/**
 * Writes a model's adapter as PEFT does: adapter_config.json with PEFT's keys, adapter_model.safetensors in f32, the
 * tokenizer files of the base beside them.
 *
 * @param baseModel what the configuration names as the base: a hub id, or a folder, which is written as an absolute
 * path so that it is found from anywhere
 * @throws ConfigError for a model without an adapter; FileError; NumericError for weights that are not finite
 */
export async function saveAdapter(model: Model, folder: string, baseModel: string = model.folder): Promise<void> {
  const { adapter, config } = model;
  if (adapter === undefined) {
    throw new ConfigError(`The model ${model.folder} has no adapter to save; write the whole model with save.`);
  }
  await writeTokenizerFiles(await textFolder(model), folder);
  const tensors = [...adapter.parts()].map((part) => {
    const name = writtenName(model, adapter, part.name);
    return { name, shape: part.shape, data: () => finitePieces(name, arenaPieces(adapter.weights, part), "f32") };
  });
  await writeSafetensors(platform.joinPath(folder, ADAPTER_WEIGHTS), tensors, { format: "pt" });
  const isLocal = (await platform.exists(baseModel)) === "folder";
  const base = isLocal ? platform.absolutePath(baseModel) : baseModel;
  const text = JSON.stringify(adapterConfig(config, adapter.options, base), null, 2);
  await platform.writeFileAtomic(platform.joinPath(folder, ADAPTER_CONFIG), `${text}\n`);
}
