/** `kto merge`: merges a LoRA adapter into its base model and writes the whole model. Needs no GPU. */
import { mergeAdapter } from "../../engine/model/merge.ts";
import { readAdapterConfig } from "../../engine/model/peft-config.ts";
import { ConfigError } from "../../errors.ts";
import { sizeInBytes } from "../../kto/options/output.ts";
import { quantizationOf } from "../../kto/options/quantization.ts";
import { copyTrainerState } from "../../kto/run/state.ts";
import { type MergeCommandOptions, mergeDescription } from "../descriptions/merge.ts";
import { command } from "../options/command.ts";
import { formatOf, modelFolder } from "../session/models.ts";
import { licenseOf, namedSource, writeCard } from "../session/results.ts";
import { checkKind, checkOutputFolder } from "../session/rows.ts";
import type { Output } from "../terminal/output.ts";

export default command(mergeDescription, runMerge);

async function runMerge(options: MergeCommandOptions, output: Output): Promise<void> {
  const adapter = await modelFolder(options.adapter_name_or_path, output);
  const { baseModel } = await readAdapterConfig(adapter);
  const base = options.model_name_or_path ?? baseModel;
  if (base === undefined) {
    throw new ConfigError(`The adapter ${adapter} does not say what its base model is; name it as model_name_or_path.`);
  }
  await checkOutputFolder(options);
  await checkKind(options.output_dir, false);
  const dtype = formatOf(options.save_dtype);
  const baseFolder = await modelFolder(base, output);
  await mergeAdapter(baseFolder, adapter, options.output_dir, {
    ...(dtype === undefined ? {} : { dtype }),
    quantization: quantizationOf(options),
    maxShardBytes: sizeInBytes(options.max_shard_size),
    onWarning: (sentence) => output.warning(sentence),
  });
  await copyTrainerState(adapter, options.output_dir);
  const facts = { method: "merge", base: await namedSource(base), isAdapter: false, datasets: [] } as const;
  await writeCard(options.output_dir, { ...facts, license: await licenseOf(baseFolder) }, [], output);
  if (output.json) output.jsonLine({ output_dir: options.output_dir, base_model: base, adapter });
  else output.result(`merged ${adapter} into ${base}; the model is in ${options.output_dir}`);
}
