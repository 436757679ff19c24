/**
 * Rows to examples: token ids within the length limits, and an account of what was dropped or cut. The conventions are
 * TRL's, except that nothing is dropped or cut without being counted, and that no EOS follows a cut.
 */
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, counted, DatasetError, ModelFormatError } from "../../errors.ts";
import { type EncodedRow, type EncodeRowOptions, rowEncoder } from "./encode.ts";
import { quantiles } from "./summary.ts";
import {
  type DatasetReport,
  type DroppedRows,
  type Example,
  type FeedbackRow,
  type FeedbackRows,
  type Labels,
  placeOf,
} from "./types.ts";

export interface TokenizeOptions extends EncodeRowOptions {
  /** The model's: ids must lie below. */
  readonly vocabSize: number;
  /** The model's longest sequence, in tokens. */
  readonly contextLength: number;
  /** Longest prompt + completion in tokens; default min(1024, contextLength). A longer completion is cut at its end. */
  readonly maxLength?: number;
  /** Rows with a longer prompt are dropped; default none. */
  readonly maxPromptLength?: number;
  /** As the rows were read: where labels are optional, rows of one class alone are nothing to warn of. */
  readonly labels?: Labels;
}

/** The length limit when none is set (TRL's default). */
export const defaultMaxLength = 1024;

/** How many lines a report names for each reason. */
const namedLines = 5;

export interface TokenizedRows {
  readonly examples: Example[];
  readonly report: DatasetReport;
}

/**
 * Tokenizes rows in order, as `encode.ts` says; rows whose prompt and completion do not meet cleanly are counted in a
 * warning. Rows that come one after another (`feedbackRows`) are forgotten once they are ids.
 *
 * @throws DatasetError naming file and line: a prompt of no tokens, a token id outside the vocabulary; no row left
 * @throws ModelFormatError if the tokenizer's special tokens lie outside the model's vocabulary
 * @throws ConfigError if maxLength is not from 2 to contextLength
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

/** Makes examples of rows whose ids are known, one after another; holds no row. Throws as `tokenizeRows` does. */
export class ExampleCollector {
  readonly #options: TokenizeOptions;
  readonly #maxLength: number;
  /** On the tokenizer. */
  readonly #warning: string | undefined;
  readonly #examples: Example[] = [];
  readonly #dropped = new Map<string, { count: number; firstLines: number[] }>();
  readonly #unaligned = { texts: 0, chats: 0, chatsParted: 0 };
  #rows = 0;
  #file = "";

  constructor(options: TokenizeOptions) {
    const { contextLength, maxPromptLength = Number.POSITIVE_INFINITY, tokenizer, vocabSize } = options;
    this.#options = options;
    this.#maxLength = options.maxLength ?? Math.min(defaultMaxLength, contextLength);
    checkLimits(this.#maxLength, maxPromptLength, contextLength);
    this.#warning = tokenizer && checkTokenizer(tokenizer, vocabSize);
  }

  /** @param encoded of the row; ids that are 32-bit words are not copied */
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
    const room = this.#maxLength - promptIds.length;
    const reason = this.#reasonToDrop(promptIds.length, completionIds.length);
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
      promptIds: words(promptIds),
      completionIds: words(completionIds).subarray(0, room),
      label: row.label,
      source: row.source,
      ...(row.pair === undefined ? {} : { pairId: row.pair }),
      cut: completionIds.length > room,
    });
  }

  finish(): TokenizedRows {
    const [examples, rows] = [this.#examples, this.#rows];
    if (rows === 0) throw new DatasetError("There are no rows of feedback to tokenize.");
    const reasons = [...this.#dropped].map(([reason, { count, firstLines }]) => ({ reason, count, firstLines }));
    if (examples.length === 0) throw nothingLeft(this.#file, rows, reasons);
    const alignment = alignmentWarnings(this.#unaligned, examples.length);
    const warnings = [...(this.#warning ? [this.#warning] : []), ...alignment];
    return { examples, report: reportOf(rows, examples, reasons, warnings, this.#options.labels) };
  }

  #reasonToDrop(promptLength: number, completionLength: number): string | undefined {
    const { contextLength, maxPromptLength = Number.POSITIVE_INFINITY } = this.#options;
    if (completionLength === 0) return "the completion is empty";
    if (promptLength > contextLength) return `the prompt is longer than the model's context of ${contextLength} tokens`;
    if (promptLength > maxPromptLength) {
      return `the prompt is longer than max_prompt_length (${maxPromptLength} tokens)`;
    }
    if (promptLength < this.#maxLength) return undefined;
    return `the prompt leaves no room for a completion within max_length (${this.#maxLength} tokens)`;
  }
}

function words(ids: ArrayLike<number>): Uint32Array<ArrayBuffer> {
  return ids instanceof Uint32Array && ids.buffer instanceof ArrayBuffer
    ? (ids as Uint32Array<ArrayBuffer>)
    : Uint32Array.from(ids);
}

function checkLimits(maxLength: number, maxPromptLength: number, contextLength: number): void {
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
  if (maxPromptLength < 1 || Number.isNaN(maxPromptLength)) {
    throw new ConfigError(`max_prompt_length is ${maxPromptLength}; it must be at least 1.`);
  }
}

/**
 * A tokenizer may know fewer tokens than the model, whose vocabulary is often padded; more of them it should not know.
 * Returns a warning where it does.
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

/** Sentences on the rows kept whose prompt and completion do not meet cleanly. */
function alignmentWarnings(
  { texts, chats, chatsParted }: { readonly texts: number; readonly chats: number; readonly chatsParted: number },
  rows: number,
): string[] {
  const warnings: string[] = [];
  const differ = "the tokens of prompt + completion do not begin with those of the prompt";
  if (texts > 0) {
    warnings.push(
      `In ${texts} of ${counted(rows, "row")} ${differ}, so the two were tokenized apart; end prompts without a space and begin completions with it.`,
    );
  }
  if (chats > 0) {
    warnings.push(
      `In ${chats} of ${counted(rows, "chat")} ${differ}, so the two were tokenized apart; a template that opens the assistant's turn with a special token or a new line avoids it.`,
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
  otherWarnings: readonly string[],
  labels: Labels = "required",
): DatasetReport {
  const desirable = examples.filter(({ label }) => label).length;
  const undesirable = examples.length - desirable;
  const prompt = examples.map(({ promptIds }) => promptIds.length);
  const completion = examples.map(({ completionIds }) => completionIds.length);
  const total = prompt.map((length, i) => length + (completion[i] ?? 0));
  const warnings: string[] = [];
  if (labels === "required" && (desirable === 0 || undesirable === 0)) {
    const [present, absent] = desirable === 0 ? ["undesirable", "desirable"] : ["desirable", "undesirable"];
    warnings.push(
      `${examples.length === 1 ? "The only row is" : `All ${examples.length} rows are`} ${present} and none is ${absent}; training on one class alone needs a careful learning rate.`,
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
    warnings: [...warnings, ...otherWarnings],
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
