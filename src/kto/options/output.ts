/** The options of the machine and of what is written: device, folder of results, log. */
import * as z from "zod";
import { DTYPE_ALIASES } from "./model.ts";
import { optionGroup } from "./option.ts";
import { STEPS_OR_SHARE, stepsOrShare } from "./steps.ts";

const { option } = optionGroup("Device");
const output = optionGroup("Output");

/** A size as Hugging Face writes it. */
const SIZE = /^(?!0+(\.0+)?\s*[KMGT]?)\d+(\.\d+)?\s*([KMGT]i?B)?$/i;

/** Bytes of "5GB" (decimal), "5GiB" (binary) or a plain number. */
export function sizeInBytes(text: string): number {
  const [, number = "0", unit = ""] = /^([\d.]+)\s*(\w*)$/.exec(text.trim()) ?? [];
  const power = ["", "K", "M", "G", "T"].indexOf(unit.charAt(0).toUpperCase());
  return Math.floor(Number(number) * (unit.toLowerCase().includes("ib") ? 1024 : 1000) ** Math.max(0, power));
}

export const deviceOptions = {
  dry_run: option(z.boolean().default(false), {
    description:
      "tell what the run would do, the memory, disk space and time that it takes, and stop; a little of it is run for the time",
  }),
  adapter: option(z.string().min(1).optional(), {
    description:
      "the GPU: auto, hardware, lavapipe, swiftshader, a number or part of a name in kto doctor's list (default: KTO_ADAPTER in the environment, else auto)",
    expects: "auto, a kind of adapter, a number or part of a name in the list of kto doctor",
    placeholder: "adapter",
    nullMeans: "auto",
  }),
  rank_timeout: option(z.number().min(1).default(60), {
    description:
      "under mpirun: seconds for which a rank may be silent, or not move, before the run ends on all of them",
    placeholder: "seconds",
  }),
};

export const outputOptions = {
  output_dir: output.option(z.string().min(1), {
    description: "the folder for the trained model and metrics.jsonl",
    expects: "a folder for the results",
    placeholder: "folder",
    aliases: ["output"],
  }),
  overwrite_output_dir: output.option(z.boolean().default(false), {
    description: "allow an output_dir that is not empty",
  }),
  save_dtype: output.option(z.enum(["float32", "float16", "bfloat16"]).default("float32"), {
    description: "number format in the files of a model that was trained whole; an adapter is saved in float32",
    valueAliases: DTYPE_ALIASES,
  }),
  max_shard_size: output.option(z.string().regex(SIZE).default("5GB"), {
    description: "split larger weights into several files",
    expects: 'a size such as "5GB", "500MB" or a number of bytes',
    placeholder: "size",
  }),
  logging_steps: output.trainerOption(stepsOrShare.clone().default(10), {
    description: "write a line of metrics.jsonl every so many updates; below 1 a share of the run",
    expects: STEPS_OR_SHARE,
    placeholder: "number",
  }),
  logging_first_step: output.trainerOption(z.boolean().default(false), {
    description: "also write a line for the first update",
  }),
  log_examples: output.trainerOption(z.boolean().default(true), {
    description:
      "write what logged updates did with each example to examples.jsonl, at most 1000 updates and 256 examples of each",
  }),
  log_ranks: output.option(z.boolean().default(false), {
    description: "under mpirun: show what every rank writes, on stderr with the rank's number, not rank 0's alone",
  }),
  report_to: output.option(z.array(z.string()).optional(), {
    description: "trackers that also get the metrics: tensorboard, mlflow, all of them or none (default: none)",
    expects: "tensorboard, mlflow, all, none or several of them",
    placeholder: "trackers",
  }),
  logging_dir: output.option(z.string().min(1).optional(), {
    description: "the folder of TensorBoard's event files (default: output_dir/runs/<date>_<host>)",
    expects: "a folder for TensorBoard's event files",
    placeholder: "folder",
  }),
  run_name: output.option(z.string().min(1).optional(), {
    description: "the name of the run in MLflow (default: output_dir)",
    expects: "a name for the run",
    placeholder: "name",
  }),
  dashboard: output.option(z.boolean().default(false), {
    description: "show the run on a page of this machine while it goes on, as kto dashboard does",
  }),
  dashboard_port: output.option(z.number().int().min(0).max(65535).default(6007), {
    description: "the port of the dashboard on 127.0.0.1, another one where it is taken; 0 for any",
  }),
  json: output.option(z.boolean().default(false), { description: "results as JSON on stdout" }),
  log_level: output.option(z.enum(["debug", "info", "warning", "error"]).default("info"), {
    description: "the least important message that stderr shows",
    valueAliases: { warn: "warning", critical: "error", passive: "info" },
  }),
  quiet: output.option(z.boolean().default(false), {
    description: "show no progress and no messages but warnings, errors and the result in its shortest form",
  }),
  debug: output.option(z.boolean().default(false), { description: "show where an error came from" }),
};
