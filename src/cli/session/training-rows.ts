/**
 * The rows of a training run, and those that it evaluates on: another data set, another split, or rows held out of the
 * training's. Supervised fine-tuning takes the desirable ones of either.
 */
import { isLocalFiles } from "../../engine/hub/resolve.ts";
import { ConfigError, counted } from "../../errors.ts";
import { DesirableRows } from "../../kto/data/desirable.ts";
import { parseSplit } from "../../kto/data/slice.ts";
import type { Example } from "../../kto/data/types.ts";
import { holdOut } from "../../kto/data/validation-split.ts";
import { evaluationStrategy } from "../../kto/options/evaluation.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import type { Output } from "../terminal/output.ts";
import { encodeFeedback, type FeedbackOptions, type ModelOfRows, readRows, requirePairs } from "./rows.ts";

export interface TrainingRows {
  readonly examples: readonly Example[];
  /** undefined for a run that does not evaluate. */
  readonly evalExamples: readonly Example[] | undefined;
}

/** The use of rows in a run: in mismatched pairs (KTO), one by one, or only desirable ones to be imitated (SFT). */
export type RowsUse = "pairs" | "rows" | "imitation";

/** Reads and tokenizes the rows of a run and separates those for evaluation. Throws what these steps throw. */
export async function loadTrainingRows(
  models: { readonly policy: ModelOfRows; readonly reference: ModelOfRows | undefined },
  config: RunConfig,
  use: RowsUse,
  output: Output,
): Promise<TrainingRows> {
  const load = async (dataset: FeedbackOptions, splitOption?: string) => {
    const options = { ...dataset, labels: use === "imitation" ? "optional" : "required" } as const;
    const read = await readRows(options, output, {}, splitOption);
    const rows = use === "imitation" ? new DesirableRows(read) : read;
    const { examples, report } = await encodeFeedback(rows, models, options, output);
    for (const sentence of report.advice) output.warning(sentence);
    if (rows instanceof DesirableRows) tellOfDesirable(rows, dataset.dataset_name, output);
    if (use === "pairs") requirePairs(examples, dataset);
    return examples;
  };
  const examples = await load(config);
  const { eval_dataset_name: other, validation_split: share } = config;
  const strategy = evaluationStrategy(config, other !== undefined || share !== undefined);
  if (strategy === "no") return { examples, evalExamples: undefined };
  if (share !== undefined) {
    const { training, validation } = holdOut(examples, share, config.seed);
    output.info(`validation: ${validation.length} of ${examples.length} rows held out`);
    return { examples: training, evalExamples: validation };
  }
  if (other === undefined) await requireOwnSplit(config);
  const dataset = {
    ...config,
    dataset_name: other ?? config.dataset_name,
    // A subset is one of the data set that it was named with.
    dataset_config: other === undefined ? config.dataset_config : undefined,
    dataset_train_split: config.dataset_test_split,
  };
  const evalExamples = await load(dataset, "dataset_test_split");
  output.info(`validation: ${counted(evalExamples.length, "row")} of ${dataset.dataset_name}`);
  return { examples, evalExamples };
}

function tellOfDesirable({ leftOut, withEarlierAnswers: chats }: DesirableRows, name: string, output: Output): void {
  if (leftOut > 0) output.info(`data: ${counted(leftOut, "undesirable row")} of ${name} left out`);
  if (chats === 0) return;
  output.info(
    `data: in ${counted(chats, "chat")} of ${name} the assistant speaks several times, and its last answer alone is imitated; give each answer as a row of its own to imitate them all`,
  );
}

/** A single file counts as every split, so only two different slices of it keep evaluation apart from training. */
async function requireOwnSplit(config: RunConfig): Promise<void> {
  const { dataset_name, dataset_train_split, dataset_test_split } = config;
  const training = parseSplit(dataset_train_split);
  const validation = parseSplit(dataset_test_split, "dataset_test_split");
  const isFile = await isLocalFiles(dataset_name);
  const sameRows = isFile || training.name === validation.name;
  const bothSliced = training.slice !== undefined && validation.slice !== undefined;
  if (!sameRows || (bothSliced && dataset_test_split !== dataset_train_split)) return;
  const found = isFile ? "is a single file" : `has one split ${training.name}`;
  throw new ConfigError(
    `eval_strategy is "${config.eval_strategy}", but ${dataset_name} ${found}, so the rows that are trained on would be evaluated: give eval_dataset_name, validation_split, or a slice of it as dataset_test_split, such as train[90%:] beside dataset_train_split train[:90%].`,
  );
}
