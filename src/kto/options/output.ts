/** The options of the machine and of what is written: the device, the folder of results, the log. */
import * as z from "zod";
import { DTYPE_ALIASES } from "./model.ts";
import { option } from "./parse.ts";

const device = "Device";
const logging = "Output";

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
    group: device,
    description:
      "tell what the run would do, the memory and disk space it needs and the time it takes, and stop; a little of it is run",
    expects: "true or false",
  }),
  adapter: option(z.string().min(1).optional(), {
    group: device,
    description:
      "the GPU: auto, hardware, lavapipe, swiftshader, a number or part of a name in kto doctor's list (default: KTO_ADAPTER in the environment, else auto)",
    expects: "auto, a kind of adapter, a number or part of a name in the list of kto doctor",
    placeholder: "adapter",
    nullMeans: "auto",
  }),
};

export const outputOptions = {
  output_dir: option(z.string().min(1), {
    group: logging,
    description: "the folder for the trained model and metrics.jsonl",
    expects: "a folder for the results",
    placeholder: "folder",
    aliases: ["output"],
  }),
  overwrite_output_dir: option(z.boolean().default(false), {
    group: logging,
    description: "allow an output_dir that is not empty",
    expects: "true or false",
  }),
  save_dtype: option(z.enum(["float32", "float16", "bfloat16"]).default("float32"), {
    group: logging,
    description: "numbers in the files of a model that was trained whole; an adapter is saved in float32",
    expects: '"float32", "float16" or "bfloat16"',
    valueAliases: DTYPE_ALIASES,
  }),
  max_shard_size: option(z.string().regex(SIZE).default("5GB"), {
    group: logging,
    description: "split larger weights into several files",
    expects: 'a size such as "5GB", "500MB" or a number of bytes',
    placeholder: "size",
  }),
  logging_steps: option(z.number().int().min(1).default(10), {
    group: logging,
    description: "write a line of metrics.jsonl every so many updates",
    expects: "a whole number of at least 1",
  }),
  logging_first_step: option(z.boolean().default(false), {
    group: logging,
    description: "also write a line for the first update",
    expects: "true or false",
  }),
  json: option(z.boolean().default(false), {
    group: logging,
    description: "results as JSON on stdout",
    expects: "true or false",
  }),
  log_level: option(z.enum(["debug", "info", "warning", "error"]).default("info"), {
    group: logging,
    description: "how much is told on stderr",
    expects: '"debug", "info", "warning" or "error"',
    valueAliases: { warn: "warning", critical: "error", passive: "info" },
  }),
  debug: option(z.boolean().default(false), {
    group: logging,
    description: "show where an error came from",
    expects: "true or false",
  }),
};
