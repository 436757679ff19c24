/** The files of lines that a run writes into its folder, beside those whose lines have a file of their own here. */

/** Metrics by TRL's names, a line for each logging window and evaluation. */
export const METRICS_FILE = "metrics.jsonl";

/** Samples of the model while it is trained, a line for each prompt. */
export const SAMPLES_FILE = "samples.jsonl";
