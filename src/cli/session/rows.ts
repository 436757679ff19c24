/**
 * The first steps of every command that runs a model: it opens the device, reads feedback and turns it into token ids,
 * and tells the user about both.
 */
import { Device } from "../../engine/gpu/device.ts";
import { isLocalFiles, resolveDatasetFiles } from "../../engine/hub/resolve.ts";
import { checkTemplateName } from "../../engine/known-templates.ts";
import { textFolder } from "../../engine/model/config/folder.ts";
import type { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { loadChatTemplate } from "../../engine/text/chat-template.ts";
import { loadTokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, counted, DatasetError } from "../../errors.ts";
import { checkColumnMapping } from "../../kto/data/columns.ts";
import type { EncodeRowOptions } from "../../kto/data/encode.ts";
import type { ExportReport } from "../../kto/data/exports/report.ts";
import { feedbackRows } from "../../kto/data/read.ts";
import { parseSplit } from "../../kto/data/slice.ts";
import { encodeWithCache, type RowsSurvey, surveyRows } from "../../kto/data/token-cache.ts";
import { defaultMaxLength, ExampleCollector } from "../../kto/data/tokenize.ts";
import type { DatasetReport, Example, FeedbackRow, FeedbackRows, Labels } from "../../kto/data/types.ts";
import type { lengthOptions } from "../../kto/options/model.ts";
import type { OptionsOf } from "../../kto/options/option.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { showingDownloads } from "../terminal/downloads.ts";
import { checkWritable, tellingNoFolder } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";
import { adapterOfRank, tellAdapters } from "./ranks.ts";

/** Opens the device for a command and closes it whatever happens. */
export async function withDevice<T>(
  options: { readonly adapter?: string | undefined },
  output: Output,
  body: (device: Device) => Promise<T>,
): Promise<T> {
  const adapterConfig = options.adapter === undefined ? "" : platform.joinPath(options.adapter, "adapter_config.json");
  if (adapterConfig !== "" && (await platform.exists(adapterConfig)) === "file") {
    throw new ConfigError(
      `option "adapter" is "${options.adapter}", a LoRA adapter, but it chooses the GPU: use --adapter_name_or_path.`,
    );
  }
  const device = await working(output, "opening the adapter", async () => {
    const adapter = await adapterOfRank(options.adapter);
    return await Device.open(adapter === undefined ? {} : { adapter });
  });
  const { display } = output;
  if (display) display.compiling = () => device.compiling;
  try {
    const { kind } = device;
    output.info(`adapter: ${device.description}${kind === "hardware" ? "" : ` (${kind}, no GPU: slow)`}`);
    await tellAdapters(device, output);
    return await body(device);
  } finally {
    if (display) display.compiling = undefined;
    device.close();
  }
}

/** The options that say how feedback becomes token ids, and whether it must be labelled (default "required"). */
export type FeedbackOptions = { readonly labels?: Labels } & Partial<OptionsOf<typeof lengthOptions>> &
  Pick<RunConfig, FeedbackOptionName>;

type FeedbackOptionName =
  | "dataset_name"
  | "dataset_config"
  | "dataset_train_split"
  | "column_mapping"
  | "label_threshold"
  | "max_samples"
  | "max_length"
  | "append_eos"
  | "text_as_chat"
  | "prompt_format"
  | "system_format"
  | "completion_format"
  | "chat_template_path"
  | "chat_template_name"
  | "chat_template_kwargs"
  | "dataset_num_proc"
  | "overwrite_cache";

/** The parts of a model that tokenization needs. */
export type ModelOfRows = Pick<Model, "config" | "folder"> & Partial<Pick<Model, "adapter">>;

/** Reads and tokenizes feedback for these models; tells what was dropped, cut or odd. */
export async function loadExamples(
  { policy, reference }: { readonly policy: ModelOfRows; readonly reference: ModelOfRows | undefined },
  options: FeedbackOptions,
  output: Output,
): Promise<{ examples: Example[]; report: DatasetReport }> {
  return await encodeFeedback(await readRows(options, output), { policy, reference }, options, output);
}

/** What is told of rows while they are read. */
export interface ReadingListeners {
  readonly onLayout?: (layout: string) => void;
  /** Called each time that all rows of exports of chat programs were read. */
  readonly onExport?: (report: ExportReport) => void;
}

/**
 * The rows that the options name, from a file or from the files of a data set's split. Each iteration reads the files
 * again; the rows are never held in memory together. What becomes of the ratings of exports is told once.
 *
 * @param splitOption the option that the split was given as, for messages
 */
export async function readRows(
  options: FeedbackOptions,
  output: Output,
  { onLayout, onExport }: ReadingListeners = {},
  splitOption?: string,
): Promise<AsyncIterable<FeedbackRow>> {
  const { dataset_config: config, column_mapping: columnMapping, label_threshold: threshold, labels } = options;
  const { name: asked, slice } = parseSplit(options.dataset_train_split, splitOption);
  // "test" is what an evaluation asks for by default; a single file is then meant as it is.
  const isFile = splitOption !== undefined && (await isLocalFiles(options.dataset_name));
  const name = isFile && asked === "test" ? "train" : asked;
  const splits = await tellingNoFolder(options.dataset_name, () =>
    showingDownloads(output, (hub) => resolveDatasetFiles(options.dataset_name, { ...hub, config, splits: [name] })),
  );
  // The rows are gone through several times.
  const told = new Set<string>();
  const readOptions = {
    onExport: (report: ExportReport) => {
      onExport?.(report);
      for (const sentence of sentencesOf(report)) {
        if (!told.has(sentence)) output.info(sentence);
        told.add(sentence);
      }
    },
    onWarning: (sentence: string) => {
      if (!told.has(sentence)) output.warning(sentence);
      told.add(sentence);
    },
    ...{ slice, onLayout, labels, labelThreshold: threshold },
    columnMapping: columnMapping && checkColumnMapping(columnMapping),
    maxRecords: options.max_samples,
    ...{ textAsChat: options.text_as_chat, promptFormat: options.prompt_format },
    ...{ systemFormat: options.system_format, completionFormat: options.completion_format },
  };
  return { [Symbol.asyncIterator]: () => feedbackRows(splits[name] ?? [], readOptions) };
}

/** What a person is told of the ratings of exports; `feedbackRows` warns of those that give no row. */
function sentencesOf({ shapes, ratings, rows, unrated, withCitations }: ExportReport): string[] {
  const more = unrated === 0 ? "" : `; ${counted(unrated, "answer was", "answers were")} not rated`;
  const counts = `data: ${shapes.join(", ")}: ${counted(ratings, "rating")}, ${counted(rows, "row")}${more}`;
  if (withCitations === 0) return [counts];
  const cite = counted(withCitations, "answer cites", "answers cite");
  return [counts, `data: ${cite} documents that the model saw and the file lacks`];
}

/**
 * Rows to token ids for these models, a row at a time; tells what was dropped, cut or odd.
 *
 * @param rows that can be gone through several times
 */
export async function encodeFeedback(
  rows: FeedbackRows,
  { policy, reference }: { readonly policy: ModelOfRows; readonly reference?: ModelOfRows | undefined },
  options: FeedbackOptions,
  output: Output,
): Promise<{ examples: Example[]; report: DatasetReport }> {
  const contextLength = Math.min(policy.config.contextLength, (reference ?? policy).config.contextLength);
  const maxLength = Math.min(options.max_length, contextLength);
  // Neither the default nor "none", which stands for the largest number, was chosen for this model.
  if (maxLength < options.max_length && ![defaultMaxLength, Number.MAX_SAFE_INTEGER].includes(options.max_length)) {
    output.warning(
      `max_length ${options.max_length} is more than the model's context of ${contextLength} tokens, which is used in its place.`,
    );
  }
  const texts = await textFolder(policy);
  const survey = await working(output, "reading rows", () => surveyRows(rows));
  const encodeOptions = await loadForRows(survey, texts, options);
  const { vocabSize } = policy.config;
  const labels = options.labels ?? "required";
  const collector = new ExampleCollector({
    ...{ ...encodeOptions, vocabSize, contextLength, maxLength, labels },
    ...{ maxPromptLength: options.max_prompt_length, truncationMode: options.truncation_mode },
    excessLength: options.excess_length_strategy,
  });
  const cacheOptions = {
    ...encodeOptions,
    modelFolder: texts,
    overwriteCache: options.overwrite_cache,
    ...{ templatePath: options.chat_template_path, threads: options.dataset_num_proc },
  };
  const count = survey.texts + survey.chats;
  const note = await working(output, "tokenizing rows", async (progress) => {
    let done = 0;
    return await encodeWithCache(rows, survey, cacheOptions, (row, encoded) => {
      collector.add(row, encoded);
      progress(++done, count);
    });
  });
  if (note?.isKept) output.debug(`data: ${note.text}`);
  else if (note) output.info(`data: ${note.text}`);
  const { examples, report } = collector.finish();
  for (const { reason, count, firstLines } of report.dropped) {
    const more = count > firstLines.length ? ", …" : "";
    output.warning(`${counted(count, "row")} dropped: ${reason} (line ${firstLines.join(", ")}${more}).`);
  }
  if (report.promptsCut > 0) {
    output.warning(`${counted(report.promptsCut, "prompt was", "prompts were")} cut in rows longer than ${maxLength}.`);
  }
  if (report.cut > 0) {
    output.warning(`${counted(report.cut, "completion was", "completions were")} cut to max_length ${maxLength}.`);
  }
  for (const warning of report.warnings) output.warning(warning);
  return { examples, report };
}

/**
 * Before any work: a run must not end in a folder that cannot be written, or spoil one that holds something. Creates
 * the folder, unless the work is only planned.
 *
 * @param harmless whether something of this name may be there
 * @throws FileError, ConfigError
 */
export async function checkOutputFolder(
  options: { readonly output_dir: string; readonly overwrite_output_dir: boolean; readonly dry_run?: boolean },
  harmless: (name: string) => boolean = () => false,
): Promise<void> {
  const { output_dir, overwrite_output_dir, dry_run = false } = options;
  await checkWritable(output_dir, dry_run);
  if ((await platform.exists(output_dir)) === undefined) return;
  const present = (await platform.list(output_dir)).filter((name) => !harmless(name));
  if (present.length === 0 || overwrite_output_dir) return;
  const resumable = present.some((name) => /^checkpoint-\d+$/.test(name));
  throw new ConfigError(
    `output_dir "${output_dir}" is not empty (it holds ${present[0]}${present.length > 1 ? ", …" : ""}); choose another folder or set overwrite_output_dir true${resumable ? ", or go on from its last checkpoint with resume_from_checkpoint true" : ""}.`,
  );
}

/** Whether these rows need a tokenizer, and a chat template, from the model's folder. */
async function loadForRows(
  { texts, chats }: RowsSurvey,
  folder: string,
  options: FeedbackOptions,
): Promise<EncodeRowOptions> {
  if (texts + chats === 0) return {};
  const tokenizer = await loadTokenizer(folder);
  const { append_eos: appendEos } = options;
  if (chats === 0) return { tokenizer, appendEos };
  const chatTemplate = await loadChatTemplate(folder, { templatePath: options.chat_template_path });
  const { chat_template_name: name } = options;
  if (name !== undefined && chatTemplate) checkTemplateName(chatTemplate, name, options.chat_template_kwargs);
  return { tokenizer, appendEos, chatTemplate, templateOptions: options.chat_template_kwargs };
}

/**
 * A folder with both a whole model and an adapter in it would leave open which of them is meant.
 *
 * @throws ConfigError where the folder holds the other kind than the one to be written
 */
export async function checkKind(folder: string, adapter: boolean): Promise<void> {
  const other = adapter ? "config.json" : "adapter_config.json";
  if ((await platform.exists(platform.joinPath(folder, other))) !== "file") return;
  const [here, made] = adapter ? ["a whole model", "an adapter"] : ["an adapter", "a whole model"];
  throw new ConfigError(`output_dir "${folder}" holds ${here}, and this makes ${made}: choose another folder.`);
}

/** A microbatch of one row has no mismatched pair. */
export function requirePairs(examples: readonly Example[], options: { readonly dataset_name: string }): void {
  if (examples.length >= 2) return;
  throw new DatasetError(
    `${options.dataset_name} has one row to use, but the reference point is measured on mismatched pairs, each prompt with the completion of another row; give at least 2 rows.`,
  );
}
