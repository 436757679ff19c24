/** Summarises rows of feedback in numbers, and writes rows in TRL's prompt/completion/label layout. */
import { exactText } from "../../engine/files/exact-json.ts";
import { platform } from "../../engine/platform/index.ts";
import { int32s, Names } from "./exports/names.ts";
import type { DatasetReport, DroppedRows, FeedbackRow, FeedbackRows, LengthSummary } from "./types.ts";
import { autoWeights, type ClassWeights, weightRatio } from "./weights.ts";

/** The numbers of `kto data`. */
export interface FeedbackSummary {
  /** Rows read (a preference pair is two). */
  readonly rows: number;
  /** Rows left after tokenization; equal to `rows` if there was none. */
  readonly kept: number;
  /** Counted among the kept rows, as `undesirable` is. */
  readonly desirable: number;
  readonly undesirable: number;
  readonly pairs: number;
  readonly distinctPrompts: number;
  readonly distinctCompletions: number;
  /** Rows equal to an earlier one in prompt, completion and label. */
  readonly repeatedRows: number;
  /** Completions of one prompt that are judged both ways. */
  readonly contradictions: number;
  /** The unit of `lengths`: tokens after tokenization or for rows of ids, else characters. */
  readonly unit: "tokens" | "characters";
  readonly lengths: DatasetReport["lengths"];
  readonly cut: number;
  readonly dropped: readonly DroppedRows[];
  /** n_D / n_U, the weighted ratio at weights 1 and 1; undefined where a class is absent. */
  readonly ratio: number | undefined;
  /** The weights that "auto" would set. */
  readonly weights: ClassWeights;
}

/**
 * Summarises rows. If they are read one after another (`feedbackRows`), no text is kept in memory.
 *
 * @param report the report of their tokenization, if there was one
 */
export function summarizeRows(rows: Iterable<FeedbackRow>, report?: DatasetReport): FeedbackSummary;
export function summarizeRows(rows: AsyncIterable<FeedbackRow>, report?: DatasetReport): Promise<FeedbackSummary>;
export function summarizeRows(rows: FeedbackRows, report?: DatasetReport): FeedbackSummary | Promise<FeedbackSummary> {
  const counter = new RowCounter();
  if (Symbol.iterator in rows) {
    for (const row of rows) counter.add(row);
    return counter.summary(report);
  }
  return (async () => {
    for await (const row of rows) counter.add(row);
    return counter.summary(report);
  })();
}

/** Counts rows one after another, and keeps only fingerprints and lengths of their texts. */
class RowCounter {
  #rows = 0;
  #desirable = 0;
  #onlyIds = true;
  /** The two rows of a pair follow each other, so that the last pair's number is enough. */
  #pairs = 0;
  #lastPair: number | undefined;
  #repeatedRows = 0;
  #contradictions = 0;
  readonly #prompts = new Names();
  readonly #completions = new Names();
  readonly #together = new Names();
  /** By the number of prompt and completion: 1 for desirable rows, 2 for undesirable ones, 3 for both. */
  readonly #labels = int32s();
  /** By row. */
  readonly #lengths = { prompt: int32s(), completion: int32s() };

  add(row: FeedbackRow): void {
    this.#rows++;
    if (row.label) this.#desirable++;
    if (!("promptIds" in row)) this.#onlyIds = false;
    if (row.pair !== undefined && row.pair !== this.#lastPair) this.#pairs++;
    this.#lastPair = row.pair;
    const [prompt, completion] = contentOf(row);
    const [promptPrint, completionPrint] = [fingerprint(prompt), fingerprint(completion)];
    this.#prompts.add(promptPrint);
    this.#completions.add(completionPrint);
    const key = this.#together.add(fingerprint([promptPrint, completionPrint]));
    const [seen, bit] = [this.#labels.at(key), row.label ? 1 : 2];
    if ((seen & bit) !== 0) this.#repeatedRows++;
    else if (seen !== 0) this.#contradictions++;
    this.#labels.set(key, seen | bit);
    const [promptLength, completionLength] = plainLengths(row);
    this.#lengths.prompt.set(this.#rows - 1, promptLength);
    this.#lengths.completion.set(this.#rows - 1, completionLength);
  }

  summary(report: DatasetReport | undefined): FeedbackSummary {
    const desirable = report?.desirable ?? this.#desirable;
    const undesirable = report?.undesirable ?? this.#rows - desirable;
    const { prompt, completion } = this.#lengths;
    const overRows = (lengthOf: (row: number) => number) => {
      const lengths = new Int32Array(this.#rows);
      for (let row = 0; row < lengths.length; row++) lengths[row] = lengthOf(row);
      return quantiles(lengths);
    };
    return {
      rows: this.#rows,
      kept: report?.examples ?? this.#rows,
      desirable,
      undesirable,
      pairs: this.#pairs,
      distinctPrompts: this.#prompts.size,
      distinctCompletions: this.#completions.size,
      repeatedRows: this.#repeatedRows,
      contradictions: this.#contradictions,
      unit: report !== undefined || this.#onlyIds ? "tokens" : "characters",
      lengths: report?.lengths ?? {
        prompt: overRows((row) => prompt.at(row)),
        completion: overRows((row) => completion.at(row)),
        total: overRows((row) => prompt.at(row) + completion.at(row)),
      },
      cut: report?.cut ?? 0,
      dropped: report?.dropped ?? [],
      ratio: desirable > 0 && undesirable > 0 ? weightRatio(desirable, undesirable, 1, 1) : undefined,
      weights: autoWeights(desirable, undesirable),
    };
  }
}

const encoder = new TextEncoder();

/** The first 128 bits of a SHA-256 digest as eight characters. Equal fingerprints are taken for equal contents. */
function fingerprint(content: unknown): string {
  const hash = platform.sha256();
  hash.update(encoder.encode(exactText(content)));
  const digest = hash.digest();
  return String.fromCharCode(
    ...Array.from({ length: 8 }, (_, i) => Number.parseInt(digest.slice(4 * i, 4 * i + 4), 16)),
  );
}

/** Writes a row as a line of JSON, in its layout without pairs. Numbers and keys stay as they were read. */
export function toPlainLine(row: FeedbackRow): string {
  const { label } = row;
  if ("promptIds" in row) {
    return exactText({ prompt_ids: row.promptIds, completion_ids: row.completionIds, label });
  }
  if ("prompt" in row) return exactText({ prompt: row.prompt, completion: row.completion, label });
  const { promptMessages, completionMessages, tools, templateOptions } = row;
  return exactText({
    prompt: promptMessages,
    completion: completionMessages,
    label,
    ...(tools ? { tools } : {}),
    ...(templateOptions ? { chat_template_kwargs: templateOptions } : {}),
  });
}

function contentOf(row: FeedbackRow): [prompt: unknown, completion: unknown] {
  if ("promptIds" in row) return [row.promptIds, row.completionIds];
  if ("prompt" in row) return [row.prompt, row.completion];
  return [[row.promptMessages, row.tools, row.templateOptions], row.completionMessages];
}

/** The lengths of a row: characters of its texts or of its messages' contents, or its number of ids. */
function plainLengths(row: FeedbackRow): [prompt: number, completion: number] {
  const content = (messages: readonly { readonly content: unknown }[]) =>
    messages.reduce((sum, { content }) => sum + textLength(content), 0);
  if ("promptIds" in row) return [row.promptIds.length, row.completionIds.length];
  if ("prompt" in row) return [row.prompt.length, row.completion.length];
  return [content(row.promptMessages), content(row.completionMessages)];
}

function textLength(content: unknown): number {
  if (typeof content === "string") return content.length;
  return content === null ? 0 : JSON.stringify(content).length;
}

/** Quantiles by the nearest-rank method. */
export function quantiles(values: readonly number[] | Int32Array): LengthSummary {
  const sorted = Float64Array.from(values).sort();
  const rank = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { min: rank(0), median: rank(0.5), p95: rank(0.95), max: rank(1) };
}
