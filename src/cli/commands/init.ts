/** `kto init`: writes a configuration for `kto train` that names a model and feedback, with values for this adapter. */
import { totalmem } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { readModelConfig } from "../../engine/model/config/folder.ts";
import { platform } from "../../engine/platform/index.ts";
import { packageFolder } from "../../engine/platform/node-package.ts";
import { ownManifest } from "../../engine/platform/node-versions.ts";
import { ConfigError, mebibytes } from "../../errors.ts";
import { ktoOptions } from "../../kto/options/kto.ts";
import { optionInfos } from "../../kto/options/option.ts";
import { sizeInBytes } from "../../kto/options/output.ts";
import { type InitOptions, initDescription } from "../descriptions/init.ts";
import { command } from "../options/command.ts";
import { configText } from "../options/config-text.ts";
import { modelFolders } from "../session/models.ts";
import { propose } from "../session/proposal.ts";
import { encodeFeedback, readRows, requirePairs, withDevice } from "../session/rows.ts";
import { checkOutputFile } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";

export default command(initDescription, runInit);

/** Memory that a run may take on a GPU, of which WebGPU does not tell how much it has. */
const GPU_BYTES = 8e9;
/** Options that are shown with their defaults, as what is changed next. */
const SHOWN = ["loss_type", "reference", "lr_scheduler_type", "fp16", "seed", "report_to"];

async function runInit(options: InitOptions, output: Output): Promise<void> {
  const { output: file, overwrite, output_dir, device_memory, json: _, log_level: __, debug: ___, ...named } = options;
  if (file !== "-") {
    if (!overwrite && (await platform.exists(file)) === "file") {
      throw new ConfigError(`output "${file}" exists: choose another name or give --overwrite.`);
    }
    await checkOutputFile(file);
  }
  const given = { ...changed(named), output_dir };
  await withDevice(options, output, async (device) => {
    const { base } = await modelFolders(options, output, false);
    const policy = { folder: base, config: await readModelConfig(base) };
    const rows = await encodeFeedback(await readRows(options, output), { policy }, options, output);
    requirePairs(rows.examples, options);
    const usual = device.isSoftware ? totalmem() / 2 : GPU_BYTES;
    const granted = device_memory === undefined ? usual : sizeInBytes(device_memory);
    const proposal = await propose(device, given, rows, policy.config.contextLength, granted);
    const memory = `${mebibytes(proposal.bytes)} of ${mebibytes(granted)}`;
    if (!proposal.fits) {
      output.warning(
        `the smallest run takes ${memory} of device memory; give --device_memory if the adapter has more, or take a smaller model.`,
      );
    }
    const { version } = ownManifest();
    const called = file === "-" ? "run.yaml" : file;
    const heading = [
      `yaml-language-server: $schema=${schemaAddress(file, version)}`,
      `Options of kto train, written by kto init ${version} for ${device.description}.`,
      `The run takes about ${memory} of device memory: npx kto-webgpu train --config ${called} --dry_run tells it exactly.`,
    ];
    const text = configText(ktoOptions, heading, proposal.values, SHOWN);
    if (file === "-") output.piece(text);
    else await platform.writeFileAtomic(file, text);
    if (options.json && file !== "-") output.jsonLine({ file, device_bytes: proposal.bytes, fits: proposal.fits });
    else if (file !== "-") output.result(`${file} is written; npx kto-webgpu train --config ${file} trains by it.`);
  });
}

/** What differs from its default. */
function changed(named: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const infos = optionInfos(initDescription.schema);
  const usual = new Map(infos.map(({ name, defaultValue }) => [name, defaultValue]));
  return Object.fromEntries(
    Object.entries(named).filter(([name, value]) => value !== undefined && value !== usual.get(name)),
  );
}

/** Where an editor finds the schema: in the project's own install of this package, else where npm's packages are served. */
function schemaAddress(file: string, version: string): string {
  const schema = join(packageFolder, "dist", "schema", "train.json");
  const project = dirname(dirname(packageFolder));
  const folder = dirname(platform.absolutePath(file));
  const isInProject =
    packageFolder.split(sep).at(-2) === "node_modules" && `${folder}${sep}`.startsWith(`${project}${sep}`);
  if (file === "-" || !isInProject) return `https://unpkg.com/kto-webgpu@${version}/dist/schema/train.json`;
  const path = relative(folder, schema).split(sep).join("/");
  return path.startsWith(".") ? path : `./${path}`;
}
