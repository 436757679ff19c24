/**
 * Rows to examples: token ids within the length limits, and an account of what was dropped or cut. The conventions are
 * TRL's, except that nothing is dropped or cut without being counted, and that no EOS follows a cut.
 */
import type { Tokenizer } from "../../engine/tokenizer.ts";
import { ConfigError, DatasetError } from "../../errors.ts";
import {
  type DatasetReport,
  type DroppedRows,
  type Example,
  type FeedbackRow,
  type LengthSummary,
  placeOf,
  type TextRow,
} from "./types.ts";

export interface TokenizeOptions {
  /** Needed for rows of text only. */
  readonly tokenizer?: Tokenizer;
  /** The model's: ids must lie below. */
  readonly vocabSize: number;
  /** The model's longest sequence, in tokens. */
  readonly contextLength: number;
  /** Longest prompt + completion in tokens; default min(1024, contextLength). A longer completion is cut at its end. */
  readonly maxLength?: number;
  /** Rows with a longer prompt are dropped; default none. */
  readonly maxPromptLength?: number;
  /** End completions of text with the tokenizer's EOS token unless they have it or were cut; default true. */
  readonly appendEos?: boolean;
}

/** The length limit when none is set (TRL's default). */
export const defaultMaxLength = 1024;

/** How many lines a report names for each reason. */
const namedLines = 5;

/**
 * Tokenizes rows in order. A prompt begins with the tokenizer's leading special tokens; a completion is what
 * tokens(prompt + completion) hold after tokens(prompt), or, where those do not begin alike, tokens(completion)
 * (counted in a warning). Rows that are token ids already are used verbatim.
 *
 * @throws DatasetError naming file and line: a prompt of no tokens, a token id outside the vocabulary; no row left
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

  const tokenizeText = textTokenizer(options);
  const examples: Example[] = [];
  const dropped = new Map<string, { count: number; firstLines: number[] }>();
  const drop = (row: FeedbackRow, reason: string) => {
    const entry = dropped.get(reason) ?? { count: 0, firstLines: [] };
    dropped.set(reason, entry);
    entry.count++;
    if (entry.firstLines.length < namedLines) entry.firstLines.push(row.source.line);
  };
  let unaligned = 0;

  for (const [index, row] of rows.entries()) {
    if ("promptMessages" in row) throw new DatasetError(`${placeOf(row.source)}: chats are not supported yet.`);
    const ids = "promptIds" in row ? { ...row, aligned: true } : tokenizeText(row);
    const { promptIds } = ids;
    let { completionIds } = ids;
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
    if (cut) completionIds = completionIds.slice(0, room);
    if (!ids.aligned) unaligned++;
    examples.push({
      index,
      promptIds: Uint32Array.from(promptIds),
      completionIds: Uint32Array.from(completionIds),
      label: row.label,
      source: row.source,
      ...(row.pair === undefined ? {} : { pairId: row.pair }),
      cut,
    });
  }

  const reasons = [...dropped].map(([reason, { count, firstLines }]) => ({ reason, count, firstLines }));
  if (examples.length === 0) throw nothingLeft(rows, reasons);
  return { examples, report: reportOf(rows.length, examples, reasons, unaligned) };
}

interface Ids {
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
  /** tokens(prompt + completion) begin with tokens(prompt). */
  readonly aligned: boolean;
}

/** A function from a text row to ids, EOS included. */
function textTokenizer({ tokenizer, appendEos = true }: TokenizeOptions): (row: TextRow) => Ids {
  // The two rows of a pair, and often more, share their prompt.
  let lastPrompt: string | undefined;
  let promptIds: readonly number[] = [];
  return ({ prompt, completion, source }) => {
    if (!tokenizer) {
      throw new DatasetError(
        `${placeOf(source)} is text, but there is no tokenizer; give "prompt_ids" and "completion_ids" instead.`,
      );
    }
    if (prompt !== lastPrompt) {
      promptIds = tokenizer.encode(prompt);
      lastPrompt = prompt;
    }
    if (completion === "") return { promptIds, completionIds: [], aligned: true };
    const whole = tokenizer.encode(prompt + completion);
    const aligned = promptIds.every((id, i) => whole[i] === id);
    const completionIds = aligned
      ? whole.slice(promptIds.length)
      : tokenizer.encode(completion, { addSpecialTokens: false });
    const eos = tokenizer.eosTokenId;
    if (appendEos && eos !== undefined && completionIds.length > 0 && completionIds.at(-1) !== eos) {
      // Still subject to the cut, which takes the EOS first.
      completionIds.push(eos);
    }
    return { promptIds, completionIds, aligned };
  };
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

function checkVocabulary(ids: readonly number[], row: FeedbackRow, vocabSize: number): void {
  const outside = ids.find((id) => id >= vocabSize);
  if (outside === undefined) return;
  const cause = "promptIds" in row ? "" : "; the tokenizer does not belong to this model";
  throw new DatasetError(
    `${placeOf(row.source)}: token id ${outside} is outside the model's vocabulary of ${vocabSize} tokens${cause}.`,
  );
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
  unaligned: number,
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
  if (unaligned > 0) {
    warnings.push(
      `In ${unaligned} of ${examples.length} rows the tokens of prompt + completion do not begin with those of the prompt, so the two were tokenized apart; end prompts without a space and begin completions with it.`,
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
    lengths: { prompt: summary(prompt), completion: summary(completion), total: summary(total) },
    warnings,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Quantiles by the nearest rank. */
function summary(lengths: readonly number[]): LengthSummary {
  const sorted = [...lengths].sort((a, b) => a - b);
  const rank = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { min: rank(0), median: rank(0.5), p95: rank(0.95), max: rank(1) };
}
