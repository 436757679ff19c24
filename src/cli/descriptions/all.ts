/** The description of every command by its name, and what its help text is made of, which needs none of the bodies. */
import type { Option } from "commander";
import { helpOptions } from "../options/help.ts";
import { benchDescription } from "./bench.ts";
import { chatDescription } from "./chat.ts";
import { dataDescription } from "./data.ts";
import { doctorDescription } from "./doctor.ts";
import { evalDescription } from "./eval.ts";
import { exportDescription } from "./export.ts";
import { generateDescription } from "./generate.ts";
import { gradcheckDescription } from "./gradcheck.ts";
import { logpsDescription } from "./logps.ts";
import { mergeDescription } from "./merge.ts";
import { sftDescription } from "./sft.ts";
import { trainDescription } from "./train.ts";

export const descriptions = {
  train: trainDescription,
  sft: sftDescription,
  eval: evalDescription,
  generate: generateDescription,
  chat: chatDescription,
  logps: logpsDescription,
  data: dataDescription,
  gradcheck: gradcheckDescription,
  merge: mergeDescription,
  export: exportDescription,
  bench: benchDescription,
  doctor: doctorDescription,
} as const;

/** A command's whole command lines and its options, as its help text shows them. */
export function helpOf(name: keyof typeof descriptions): {
  readonly examples: readonly string[];
  readonly options: readonly Option[];
} {
  const { examples, schema } = descriptions[name];
  return { examples, options: helpOptions(schema) };
}
