/** What lies beside a result: its model card, and what its run was started with. */

import { parse } from "yaml";
import { platform } from "../../engine/platform/index.ts";
import { ownManifest } from "../../engine/platform/node-versions.ts";
import { KtoError } from "../../errors.ts";
import { SECRET_OPTIONS } from "../../kto/options/hub.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { CARD_FILE, type CardFacts, type NamedSource, writeModelCard } from "../../kto/report/model-card.ts";
import { RUN_FILE, type RunFacts } from "../../kto/run/run-facts.ts";
import type { Output } from "../terminal/output.ts";

/** Writes the card of a result; one that was changed is kept, and a disk that is full does not lose the result. */
export async function writeCard(
  folder: string,
  facts: Omit<CardFacts, "title" | "made">,
  made: readonly string[],
  output: Output,
): Promise<void> {
  const { name, version } = ownManifest();
  const title = platform.baseName(platform.absolutePath(folder));
  try {
    const written = await writeModelCard(folder, { ...facts, title, made: [`Made with ${name} ${version}.`, ...made] });
    if (!written) output.warning(`${platform.joinPath(folder, CARD_FILE)} is not kto's, or was changed, and is kept.`);
  } catch (error) {
    if (!(error instanceof KtoError)) throw error;
    output.warning(`The model card was not written: ${error.message}`);
  }
}

/** Writes run.json; a disk that is full does not lose the run. */
export async function writeFacts(
  folder: string,
  facts: Omit<RunFacts, "started" | "program">,
  onWarning: (sentence: string) => void,
): Promise<void> {
  const { name, version } = ownManifest();
  const all: RunFacts = { started: new Date().toISOString(), program: `${name} ${version}`, ...facts };
  try {
    await platform.writeFileAtomic(platform.joinPath(folder, RUN_FILE), `${JSON.stringify(all, null, 2)}\n`);
  } catch (error) {
    if (!(error instanceof KtoError)) throw error;
    onWarning(`${error.message} The training goes on.`);
  }
}

/** All options of a run but those that no file may repeat. */
export function shownOptions(config: RunConfig): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(config).filter(([name]) => !SECRET_OPTIONS.includes(name)));
}

/** A model or data set as the user named it. */
export async function namedSource(name: string): Promise<NamedSource> {
  return { name, isLocal: (await platform.exists(name)) !== undefined || !/^[\w.-]+(\/[\w.-]+)?$/.test(name) };
}

/** The license that the card of a local model folder names. */
export async function licenseOf(folder: string): Promise<string | undefined> {
  const path = platform.joinPath(folder, CARD_FILE);
  if ((await platform.exists(path)) !== "file") return undefined;
  const [, front] = /^---\r?\n([\s\S]*?)\r?\n---/.exec(await platform.readText(path)) ?? [];
  try {
    const license: unknown = (parse(front ?? "") as { license?: unknown } | null)?.license;
    return typeof license === "string" ? license : undefined;
  } catch {
    // A card that is no YAML names no license that anybody could read.
    return undefined;
  }
}

/** The options that a card shows: what decides the result, paths and secrets left out. */
export function shownSettings(config: RunConfig): Readonly<Record<string, unknown>> {
  const all = config as Readonly<Record<string, unknown>>;
  const names = config.use_peft ? [...SHOWN, ...SHOWN_OF_LORA] : SHOWN;
  return Object.fromEntries(names.filter((name) => !SECRET_OPTIONS.includes(name)).map((name) => [name, all[name]]));
}

const SHOWN = [
  ...["loss_type", "beta", "desirable_weight", "undesirable_weight", "learning_rate", "lr_scheduler_type"],
  ...["per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "max_length"],
  ...["weight_decay", "max_grad_norm", "seed"],
];
const SHOWN_OF_LORA = ["lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora"];
