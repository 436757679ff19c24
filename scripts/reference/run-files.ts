/**
 * Every file that a command writes or reads by a name of its own. The names are the code's; test/documentation/commands.test.ts
 * finds each file that its runs leave behind in this list.
 */

import { CHECKSUMS_FILE } from "../../src/engine/files/checkpoint-folders.ts";
import { MODEL_FILES, TEMPLATES_FOLDER, TOKENIZER_FILES } from "../../src/engine/model/config/folder.ts";
import { ADAPTER_CONFIG } from "../../src/engine/model/peft-config.ts";
import { ADAPTER_WEIGHTS } from "../../src/engine/model/peft-tensors.ts";
import { INDEX_FILE, WEIGHTS_FILE } from "../../src/engine/model/weights/weight-files.ts";
import { BEST_FOLDER } from "../../src/kto/evaluation/best-model.ts";
import { judgeOptions } from "../../src/kto/options/judge.ts";
import { CARD_FILE, CURVES_FILE } from "../../src/kto/report/model-card.ts";
import { RUNS_FOLDER } from "../../src/kto/report/trackers/tensorboard.ts";
import { OPTIMIZER_FILE } from "../../src/kto/run/checkpoints.ts";
import { EVENTS_FILE } from "../../src/kto/run/event-line.ts";
import { EXAMPLES_FILE } from "../../src/kto/run/example-line.ts";
import { LOCK_FILE } from "../../src/kto/run/lock.ts";
import { RANKS_FILE } from "../../src/kto/run/rank-states.ts";
import { ROWS_FILE } from "../../src/kto/run/row-line.ts";
import { RUN_FILE } from "../../src/kto/run/run-facts.ts";
import { METRICS_FILE, SAMPLES_FILE } from "../../src/kto/run/run-files.ts";
import { RANDOM_STATE_FILE, RUN_STATE_FILE, TRAINER_STATE_FILE } from "../../src/kto/run/state.ts";
import { TRACKERS_FILE } from "../../src/kto/run/tracking.ts";

export interface NamedFile {
  /** Paths from the folder that the group names; `*` stands for what varies within a name. */
  readonly names: readonly string[];
  readonly meaning: string;
}

export interface FileGroup {
  readonly title: string;
  /** One sentence under the title. */
  readonly where: string;
  readonly files: readonly NamedFile[];
}

const checkpoint = "checkpoint-*";
const transcripts = String(judgeOptions.judge_transcripts.def.defaultValue);

const model: readonly NamedFile[] = [
  { names: MODEL_FILES, meaning: "configuration of the model, and how it generates where its folder says that" },
  {
    names: [WEIGHTS_FILE, INDEX_FILE, "model-*-of-*.safetensors"],
    meaning: "the weights in `save_dtype`; beyond `max_shard_size` several files and the index of their tensors",
  },
  {
    names: [ADAPTER_CONFIG, ADAPTER_WEIGHTS],
    meaning: "of a LoRA adapter in place of the two rows above: PEFT's files",
  },
  {
    names: [...TOKENIZER_FILES, `${TEMPLATES_FOLDER}/*.jinja`],
    meaning: "tokenizer and chat templates, copied from the model's folder where it has them",
  },
];

export const fileGroups: readonly FileGroup[] = [
  {
    title: "The output folder of a run",
    where: "What `kto train` and `kto sft` write into `output_dir`.",
    files: [
      ...model,
      { names: [CARD_FILE, CURVES_FILE], meaning: "the model card and its curves; a card that was changed is kept" },
      {
        names: [METRICS_FILE],
        meaning: "[metrics](../metrics.md), a JSON object for each logging step and evaluation",
      },
      { names: [EXAMPLES_FILE], meaning: "what logged updates did with [each example](../metrics.md#examples)" },
      {
        names: [SAMPLES_FILE],
        meaning:
          "what the model says to the same prompts at each evaluation, with `eval_samples` or `eval_prompts_file`",
      },
      {
        names: [ROWS_FILE],
        meaning: "the texts of rows that stood out among logged examples ([dashboard](../dashboard.md))",
      },
      { names: [EVENTS_FILE], meaning: "what the run said: warnings, checkpoints, why it ended" },
      { names: [RUN_FILE], meaning: "what the run was started with: model, data, adapter, options but secrets" },
      { names: [TRAINER_STATE_FILE], meaning: "the log with Hugging Face's keys, for programs that read that" },
      {
        names: [`${BEST_FOLDER}/trained.safetensors`],
        meaning: "what is trained as it was at the best evaluation, with `load_best_model_at_end`",
      },
      {
        names: [`${RUNS_FOLDER}/*/events.out.tfevents.*`],
        meaning: "TensorBoard's events, with `report_to tensorboard`",
      },
      { names: [TRACKERS_FILE], meaning: "which TensorBoard folder and MLflow run a resumed run goes on with" },
      { names: [LOCK_FILE], meaning: "which process writes here; gone when the run has ended" },
    ],
  },
  {
    title: "A checkpoint",
    where:
      "In `checkpoint-N` of the output folder, N being the updates done, beside model or adapter (in f32), tokenizer and card.",
    files: [
      {
        names: [`${checkpoint}/${OPTIMIZER_FILE}`],
        meaning: "moments, state of the optimizer, sums of the logging window, a reference that moves",
      },
      {
        names: [`${checkpoint}/${RANKS_FILE}`],
        meaning: "with `sync_every`: what each rank has by itself, its weights between two outer steps and its moments",
      },
      { names: [`${checkpoint}/${RUN_STATE_FILE}`], meaning: "options, place in the data and counts" },
      { names: [`${checkpoint}/${RANDOM_STATE_FILE}`], meaning: "what random numbers follow from" },
      { names: [`${checkpoint}/${TRAINER_STATE_FILE}`], meaning: "the log so far, with Hugging Face's keys" },
      { names: [`${checkpoint}/${CHECKSUMS_FILE}`], meaning: "size and SHA-256 of every other file" },
    ],
  },
  {
    title: "Where a command was started",
    where: "In the current folder, unless an option names another place.",
    files: [
      { names: [transcripts], meaning: "every exchange with a judge (`judge_transcripts`)" },
      { names: ["run.yaml"], meaning: "the configuration that `kto init` writes (`output`)" },
      { names: ["*.gguf", "*.Modelfile"], meaning: "what `kto export` writes: the model, and how Ollama takes it" },
    ],
  },
  {
    title: "The cache folder",
    where: "`~/.cache/kto-webgpu`, or `KTO_CACHE`; all of it can be removed and is made again.",
    files: [
      { names: ["tokens/*.ids"], meaning: "token ids of a feedback file; the newest 32 files are kept" },
      { names: ["reference/*.logps"], meaning: "a reference's log-probs, with `reference cached`; the newest 32" },
      { names: ["tuning/*.json"], meaning: "which kernels were the fastest on an adapter" },
    ],
  },
];
