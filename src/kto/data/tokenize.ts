/**
 * Turns rows into examples: token ids within the length limits, with a report of what was dropped or cut. The
 * conventions are TRL's, except that everything dropped or cut is counted, and that no EOS follows a cut.
 */
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, counted, DatasetError, ModelFormatError } from "../../errors.ts";
import { type EncodedRow, type EncodeRowOptions, rowEncoder } from "./encode.ts";
import { quantiles } from "./summary.ts";
import { checkTruncation, type Kept, keptTokens, type TruncationRules } from "./truncation.ts";
import {
  type DatasetReport,
  type DroppedRows,
  type Example,
  type FeedbackRow,
  type FeedbackRows,
  type Labels,
  placeOf,
} from "./types.ts";

export interface TokenizeOptions extends EncodeRowOptions, Omit<TruncationRules, "maxLength"> {
  /** The size of the model's vocabulary; all ids must be smaller. */
  readonly vocabSize: number;
  /** The model's longest sequence, in tokens. */
  readonly contextLength: number;
  /** Longest prompt + completion in tokens; default min(1024, contextLength). A longer completion is cut at its end. */
  readonly maxLength?: number;
  /** What becomes of longer rows; default "truncate". "raise" throws a DatasetError for the first of them. */
  readonly excessLength?: "truncate" | "drop" | "raise" | undefined;
  /** The option with which the rows were read. If labels are optional, rows of one class are not worth a warning. */
  readonly labels?: Labels;
}

/** The length limit when none is set (TRL's default). */
export const defaultMaxLength = 1024;

/** How many line numbers a report names for each reason. */
const namedLines = 5;

export interface TokenizedRows {
  readonly examples: Example[];
  readonly report: DatasetReport;
}

/**
 * Tokenizes rows in order, as described in `encode.ts`. A warning counts rows whose prompt and completion had to be
 * tokenized separately. If rows are read one after another (`feedbackRows`), their texts are not kept.
 *
 * @throws DatasetError naming file and line if a prompt has no tokens or a token id is outside the vocabulary, and if
 * no row is left
 * @throws ModelFormatError if the tokenizer's special tokens lie outside the model's vocabulary
 * @throws ConfigError if maxLength is not between 2 and contextLength
 */
export function tokenizeRows(rows: Iterable<FeedbackRow>, options: TokenizeOptions): TokenizedRows;
export function tokenizeRows(rows: AsyncIterable<FeedbackRow>, options: TokenizeOptions): Promise<TokenizedRows>;
export function tokenizeRows(rows: FeedbackRows, options: TokenizeOptions): TokenizedRows | Promise<TokenizedRows> {
  const collector = new ExampleCollector(options);
  const encode = rowEncoder(options);
  if (Symbol.iterator in rows) {
    for (const row of rows) collector.add(row, encode(row));
    return collector.finish();
  }
  return (async () => {
    for await (const row of rows) collector.add(row, encode(row));
    return collector.finish();
  })();
}

/** Collects examples from encoded rows, one after another, without keeping the rows. Throws as `tokenizeRows` does. */
export class ExampleCollector {
  readonly #options: TokenizeOptions;
  readonly #rules: TruncationRules;
  /** A warning about the tokenizer. */
  readonly #warning: string | undefined;
  readonly #examples: Example[] = [];
  readonly #dropped = new Map<string, { count: number; firstLines: number[] }>();
  readonly #unaligned = { texts: 0, chats: 0, chatsParted: 0 };
  #rows = 0;
  #promptsCut = 0;
  #file = "";

  constructor(options: TokenizeOptions) {
    const { contextLength, maxPromptLength, truncationMode, tokenizer, vocabSize } = options;
    this.#options = options;
    const maxLength = options.maxLength ?? Math.min(defaultMaxLength, contextLength);
    this.#rules = { maxLength, maxPromptLength, truncationMode };
    checkLimits(maxLength, maxPromptLength, contextLength);
    checkTruncation(this.#rules);
    this.#warning = tokenizer && checkTokenizer(tokenizer, vocabSize);
  }

  /** @param encoded the row's ids; they are not copied if they are in a Uint32Array */
  add(row: FeedbackRow, { promptIds, completionIds, aligned, promptIsPrefix }: EncodedRow): void {
    const { vocabSize } = this.#options;
    const index = this.#rows++;
    if (index === 0) this.#file = row.source.file;
    if (promptIds.length === 0) {
      throw new DatasetError(
        `${placeOf(row.source)}: the prompt has no tokens; one or more are needed before the completion.`,
      );
    }
    checkVocabulary(promptIds, row, vocabSize);
    checkVocabulary(completionIds, row, vocabSize);
    const kept = this.#kept(promptIds, completionIds, row);
    const reason = this.#reasonToDrop(promptIds.length, completionIds.length, kept);
    if (reason !== undefined) {
      const entry = this.#dropped.get(reason) ?? { count: 0, firstLines: [] };
      this.#dropped.set(reason, entry);
      entry.count++;
      if (entry.firstLines.length < namedLines) entry.firstLines.push(row.source.line);
      return;
    }
    if (!aligned) this.#unaligned["promptMessages" in row ? "chats" : "texts"]++;
    if (!promptIsPrefix) this.#unaligned.chatsParted++;
    this.#examples.push({
      index,
      promptIds: cutPrompt(words(promptIds), kept),
      completionIds: words(completionIds).subarray(0, kept.completion),
      label: row.label,
      source: row.source,
      ...(row.pair === undefined ? {} : { pairId: row.pair }),
      cut: completionIds.length > kept.completion,
    });
    if (kept.head + kept.tail < promptIds.length) this.#promptsCut++;
  }

  finish(): TokenizedRows {
    const [examples, rows] = [this.#examples, this.#rows];
    if (rows === 0) throw new DatasetError("There are no rows of feedback to tokenize.");
    const reasons = [...this.#dropped].map(([reason, { count, firstLines }]) => ({ reason, count, firstLines }));
    if (examples.length === 0) throw nothingLeft(this.#file, rows, reasons);
    const alignment = alignmentWarnings(this.#unaligned, examples.length);
    const warnings = [...(this.#warning ? [this.#warning] : []), ...alignment];
    const report = reportOf(rows, examples, reasons, warnings, this.#options.labels);
    return { examples, report: { ...report, promptsCut: this.#promptsCut } };
  }

  #kept(promptIds: ArrayLike<number>, completionIds: ArrayLike<number>, { source }: FeedbackRow): Kept {
    const { tokenizer, excessLength } = this.#options;
    const { maxLength } = this.#rules;
    const length = promptIds.length + completionIds.length;
    if (length > maxLength && excessLength === "raise") {
      throw new DatasetError(
        `${placeOf(source)} has ${length} tokens, more than max_length (${maxLength}): set excess_length_strategy to "truncate" or "drop", or a larger max_length.`,
      );
    }
    const beginsWithBos = tokenizer?.bosTokenId !== undefined && promptIds[0] === tokenizer.bosTokenId;
    return keptTokens(promptIds.length, completionIds.length, beginsWithBos, this.#rules);
  }

  #reasonToDrop(promptLength: number, completionLength: number, kept: Kept): string | undefined {
    const { contextLength, excessLength } = this.#options;
    const { maxLength } = this.#rules;
    if (completionLength === 0) return "the completion is empty";
    if (excessLength === "drop" && promptLength + completionLength > maxLength) {
      return `the row is longer than max_length (${maxLength} tokens)`;
    }
    if (kept.completion > 0 && kept.head + kept.tail > 0) return undefined;
    if (promptLength > contextLength) return `the prompt is longer than the model's context of ${contextLength} tokens`;
    return `the prompt leaves no room for a completion within max_length (${maxLength} tokens)`;
  }
}

/** The beginning and the end of a prompt that are kept; not copied if nothing is cut. */
function cutPrompt(ids: Uint32Array<ArrayBuffer>, { head, tail }: Kept): Uint32Array<ArrayBuffer> {
  if (tail === 0) return ids.subarray(0, head);
  const kept = new Uint32Array(head + tail);
  kept.set(ids.subarray(0, head));
  kept.set(ids.subarray(ids.length - tail), head);
  return kept;
}

function words(ids: ArrayLike<number>): Uint32Array<ArrayBuffer> {
  return ids instanceof Uint32Array && ids.buffer instanceof ArrayBuffer
    ? (ids as Uint32Array<ArrayBuffer>)
    : Uint32Array.from(ids);
}

function checkLimits(maxLength: number, maxPromptLength: number | undefined, contextLength: number): void {
  if (!Number.isInteger(maxLength) || maxLength < 2) {
    throw new ConfigError(
      `max_length is ${maxLength}; it must be a whole number of at least 2, for a prompt and a completion.`,
    );
  }
  if (maxLength > contextLength) {
    throw new ConfigError(
      `max_length is ${maxLength}, but the model's context is ${contextLength} tokens; set max_length to ${contextLength} or less.`,
    );
  }
  if (maxPromptLength !== undefined && !(Number.isInteger(maxPromptLength) && maxPromptLength >= 1)) {
    throw new ConfigError(`max_prompt_length is ${maxPromptLength}; it must be a whole number of at least 1.`);
  }
}

/**
 * Checks a tokenizer against the model's vocabulary, which may be larger since it is often padded. Returns a warning if
 * the tokenizer's is larger.
 */
function checkTokenizer(tokenizer: Tokenizer, vocabSize: number): string | undefined {
  if (tokenizer.vocabSize <= vocabSize) return undefined;
  const sizes = `The tokenizer has ${tokenizer.vocabSize} tokens, the model ${vocabSize}`;
  const special = (["bos", "eos"] as const).find((name) => (tokenizer[`${name}TokenId`] ?? 0) >= vocabSize);
  if (special === undefined) return `${sizes}; a row that needs one of the others will be refused.`;
  throw new ModelFormatError(
    `${sizes}, and its ${special}_token is number ${tokenizer[`${special}TokenId`]}: they do not belong together; put the model's own tokenizer files into its folder.`,
  );
}

function checkVocabulary(ids: ArrayLike<number>, row: FeedbackRow, vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] ?? 0;
    if (id < vocabSize) continue;
    const cause = "promptIds" in row ? "" : "; the tokenizer does not belong to this model";
    throw new DatasetError(
      `${placeOf(row.source)}: token id ${id} is outside the model's vocabulary of ${vocabSize} tokens${cause}.`,
    );
  }
}

/** Warnings about kept rows whose prompt and completion had to be tokenized separately. */
function alignmentWarnings(
  { texts, chats, chatsParted }: { readonly texts: number; readonly chats: number; readonly chatsParted: number },
  rows: number,
): string[] {
  const warnings: string[] = [];
  const differ = "the tokens of prompt + completion do not begin with those of the prompt";
  if (texts > 0) {
    warnings.push(
      `In ${texts} of ${counted(rows, "row")} ${differ}, so the two were tokenized separately; end prompts without a space and begin completions with it.`,
    );
  }
  if (chats > 0) {
    warnings.push(
      `In ${chats} of ${counted(rows, "chat")} ${differ}, so the two were tokenized separately; a template that opens the assistant's turn with a special token or a new line avoids it.`,
    );
  }
  if (chatsParted > 0) {
    warnings.push(
      `In ${chatsParted} of ${counted(rows, "chat")} the template renders the prompt alone otherwise than as the beginning of the whole, so the completion begins where they first differ; look at the rows, or set the template's variables (chat_template_kwargs, such as enable_thinking) or another template (chat_template_path).`,
    );
  }
  return warnings;
}

function nothingLeft(file: string, rows: number, reasons: readonly DroppedRows[]): DatasetError {
  const lines = ({ count, firstLines }: DroppedRows) =>
    `${firstLines.length === 1 ? "line" : "lines"} ${firstLines.join(", ")}${count > firstLines.length ? ", ..." : ""}`;
  const list = reasons.map((entry) => `${entry.count} (${lines(entry)}) because ${entry.reason}`).join("; ");
  return new DatasetError(
    `${file}: ${rows === 1 ? "its only row cannot" : `none of the ${rows} rows can`} be used: ${list}.`,
  );
}

function reportOf(
  rows: number,
  examples: readonly Example[],
  dropped: readonly DroppedRows[],
  warnings: readonly string[],
  labels: Labels = "required",
): Omit<DatasetReport, "promptsCut"> {
  const desirable = examples.filter(({ label }) => label).length;
  const undesirable = examples.length - desirable;
  const prompt = examples.map(({ promptIds }) => promptIds.length);
  const completion = examples.map(({ completionIds }) => completionIds.length);
  const total = prompt.map((length, i) => length + (completion[i] ?? 0));
  const advice: string[] = [];
  if (labels === "required" && (desirable === 0 || undesirable === 0)) {
    const [present, absent] = desirable === 0 ? ["undesirable", "desirable"] : ["desirable", "undesirable"];
    advice.push(
      `${examples.length === 1 ? "The only row is" : `All ${examples.length} rows are`} ${present} and none is ${absent}; KTO learns what tells the two apart, so there is no margin to see: add rows that are ${absent}${desirable > 0 ? ", or use kto sft, which takes good answers alone" : ""}.`,
    );
  }
  return {
    rows,
    examples: examples.length,
    desirable,
    undesirable,
    dropped,
    cut: examples.filter(({ cut }) => cut).length,
    promptTokens: sum(prompt),
    completionTokens: sum(completion),
    lengths: { prompt: quantiles(prompt), completion: quantiles(completion), total: quantiles(total) },
    warnings,
    advice,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
