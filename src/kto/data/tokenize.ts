/**
 * Rows to examples: token ids within the length limits, and an account of what was dropped or cut. The conventions are
 * TRL's, except that nothing is dropped or cut without being counted, and that no EOS follows a cut.
 */
import type { Tokenizer } from "../../engine/tokenizer.ts";
import { ConfigError, DatasetError, ModelFormatError } from "../../errors.ts";
import { type EncodedRow, type EncodeRowOptions, rowEncoder } from "./encode.ts";
import { quantiles } from "./summary.ts";
import { type DatasetReport, type DroppedRows, type Example, type FeedbackRow, placeOf } from "./types.ts";

export interface TokenizeOptions extends EncodeRowOptions {
  /** The model's: ids must lie below. */
  readonly vocabSize: number;
  /** The model's longest sequence, in tokens. */
  readonly contextLength: number;
  /** Longest prompt + completion in tokens; default min(1024, contextLength). A longer completion is cut at its end. */
  readonly maxLength?: number;
  /** Rows with a longer prompt are dropped; default none. */
  readonly maxPromptLength?: number;
  /** The rows' ids where they are known already (`token-cache.ts`), one entry a row. */
  readonly encoded?: readonly EncodedRow[];
}

/** The length limit when none is set (TRL's default). */
export const defaultMaxLength = 1024;

/** How many lines a report names for each reason. */
const namedLines = 5;

/**
 * Tokenizes rows in order, as `encode.ts` says; rows whose prompt and completion do not meet cleanly are counted in a
 * warning.
 *
 * @throws DatasetError naming file and line: a prompt of no tokens, a token id outside the vocabulary; no row left
 * @throws ModelFormatError if the tokenizer's special tokens lie outside the model's vocabulary
 * @throws ConfigError if maxLength is not from 2 to contextLength
 */
export function tokenizeRows(
  rows: readonly FeedbackRow[],
  options: TokenizeOptions,
): { examples: Example[]; report: DatasetReport } {
  const { vocabSize, contextLength, maxPromptLength = Number.POSITIVE_INFINITY } = options;
  const maxLength = options.maxLength ?? Math.min(defaultMaxLength, contextLength);
  checkLimits(maxLength, maxPromptLength, contextLength);
  if (rows.length === 0) throw new DatasetError("There are no rows of feedback to tokenize.");

  const outside = options.tokenizer && checkTokenizer(options.tokenizer, vocabSize);
  const encode = rowEncoder(options);
  const examples: Example[] = [];
  const dropped = new Map<string, { count: number; firstLines: number[] }>();
  const drop = (row: FeedbackRow, reason: string) => {
    const entry = dropped.get(reason) ?? { count: 0, firstLines: [] };
    dropped.set(reason, entry);
    entry.count++;
    if (entry.firstLines.length < namedLines) entry.firstLines.push(row.source.line);
  };
  const unaligned = { texts: 0, chats: 0, chatsParted: 0 };

  for (const [index, row] of rows.entries()) {
    const { promptIds, completionIds, aligned, promptIsPrefix } = options.encoded?.[index] ?? encode(row);
    if (promptIds.length === 0) {
      throw new DatasetError(
        `${placeOf(row.source)}: the prompt has no tokens; one or more are needed before the completion.`,
      );
    }
    checkVocabulary(promptIds, row, vocabSize);
    checkVocabulary(completionIds, row, vocabSize);
    if (completionIds.length === 0) {
      drop(row, "the completion is empty");
      continue;
    }
    if (promptIds.length > contextLength) {
      drop(row, `the prompt is longer than the model's context of ${contextLength} tokens`);
      continue;
    }
    if (promptIds.length > maxPromptLength) {
      drop(row, `the prompt is longer than max_prompt_length (${maxPromptLength} tokens)`);
      continue;
    }
    const room = maxLength - promptIds.length;
    if (room < 1) {
      drop(row, `the prompt leaves no room for a completion within max_length (${maxLength} tokens)`);
      continue;
    }
    const cut = completionIds.length > room;
    if (!aligned) unaligned["promptMessages" in row ? "chats" : "texts"]++;
    if (!promptIsPrefix) unaligned.chatsParted++;
    examples.push({
      index,
      promptIds: Uint32Array.from(promptIds),
      completionIds: Uint32Array.from(completionIds).slice(0, room),
      label: row.label,
      source: row.source,
      ...(row.pair === undefined ? {} : { pairId: row.pair }),
      cut,
    });
  }

  const reasons = [...dropped].map(([reason, { count, firstLines }]) => ({ reason, count, firstLines }));
  if (examples.length === 0) throw nothingLeft(rows, reasons);
  const warnings = [...(outside ? [outside] : []), ...alignmentWarnings(unaligned, examples.length)];
  return { examples, report: reportOf(rows.length, examples, reasons, warnings) };
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
      `In ${texts} of ${rows} rows ${differ}, so the two were tokenized apart; end prompts without a space and begin completions with it.`,
    );
  }
  if (chats > 0) {
    warnings.push(
      `In ${chats} of ${rows} chats ${differ}, so the two were tokenized apart; a template that opens the assistant's turn with a special token or a new line avoids it.`,
    );
  }
  if (chatsParted > 0) {
    warnings.push(
      `In ${chatsParted} of ${rows} chats the template renders the prompt alone otherwise than as the beginning of the whole, so the completion begins where they first differ; look at the rows, or set the template's variables (chat_template_kwargs, such as enable_thinking) or another template (chat_template_path).`,
    );
  }
  return warnings;
}

function nothingLeft(rows: readonly FeedbackRow[], reasons: readonly DroppedRows[]): DatasetError {
  const file = rows[0]?.source.file;
  const lines = ({ count, firstLines }: DroppedRows) =>
    `${firstLines.length === 1 ? "line" : "lines"} ${firstLines.join(", ")}${count > firstLines.length ? ", ..." : ""}`;
  const list = reasons.map((entry) => `${entry.count} (${lines(entry)}) because ${entry.reason}`).join("; ");
  return new DatasetError(`${file}: none of the ${rows.length} rows can be used: ${list}.`);
}

function reportOf(
  rows: number,
  examples: readonly Example[],
  dropped: readonly DroppedRows[],
  otherWarnings: readonly string[],
): DatasetReport {
  const desirable = examples.filter(({ label }) => label).length;
  const undesirable = examples.length - desirable;
  const prompt = examples.map(({ promptIds }) => promptIds.length);
  const completion = examples.map(({ completionIds }) => completionIds.length);
  const total = prompt.map((length, i) => length + (completion[i] ?? 0));
  const warnings: string[] = [];
  if (desirable === 0 || undesirable === 0) {
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
