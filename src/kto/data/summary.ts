/** What a set of rows amounts to, in numbers, and the rows written out in TRL's prompt/completion/label layout. */
import type { DatasetReport, DroppedRows, FeedbackRow, LengthSummary } from "./types.ts";
import { autoWeights, type ClassWeights, weightRatio } from "./weights.ts";

/** The numbers of `kto data`. */
export interface FeedbackSummary {
  /** Rows read (a preference pair is two). */
  readonly rows: number;
  /** Rows left after tokenization; all where there was none. */
  readonly kept: number;
  /** Among the kept. */
  readonly desirable: number;
  readonly undesirable: number;
  readonly pairs: number;
  readonly distinctPrompts: number;
  readonly distinctCompletions: number;
  /** Rows equal to an earlier one in prompt, completion and label. */
  readonly repeatedRows: number;
  /** Completions of one prompt that are judged both ways. */
  readonly contradictions: number;
  /** Of the lengths; for rows of ids without a model, tokens too. */
  readonly unit: "tokens" | "characters";
  readonly lengths: DatasetReport["lengths"];
  readonly cut: number;
  readonly dropped: readonly DroppedRows[];
  /** n_D / n_U, the weighted ratio at weights 1 and 1; undefined where a class is absent. */
  readonly ratio: number | undefined;
  /** What "auto" would set. */
  readonly weights: ClassWeights;
}

/** @param report of tokenization with a model, if there was one */
export function summarizeRows(rows: readonly FeedbackRow[], report?: DatasetReport): FeedbackSummary {
  const desirable = report?.desirable ?? rows.filter(({ label }) => label).length;
  const undesirable = report?.undesirable ?? rows.length - desirable;
  const prompts = new Set<string>();
  const completions = new Set<string>();
  const labels = new Map<string, Set<boolean>>();
  let repeatedRows = 0;
  for (const row of rows) {
    const [prompt, completion] = contentOf(row).map((part) => JSON.stringify(part)) as [string, string];
    prompts.add(prompt);
    completions.add(completion);
    const key = `${prompt}\n${completion}`;
    const seen = labels.get(key) ?? new Set();
    labels.set(key, seen);
    if (seen.has(row.label)) repeatedRows++;
    seen.add(row.label);
  }
  return {
    rows: rows.length,
    kept: report?.examples ?? rows.length,
    desirable,
    undesirable,
    pairs: new Set(rows.flatMap(({ pair }) => (pair === undefined ? [] : [pair]))).size,
    distinctPrompts: prompts.size,
    distinctCompletions: completions.size,
    repeatedRows,
    contradictions: [...labels.values()].filter((seen) => seen.size === 2).length,
    unit: report !== undefined || rows.every((row) => "promptIds" in row) ? "tokens" : "characters",
    lengths: report?.lengths ?? plainLengths(rows),
    cut: report?.cut ?? 0,
    dropped: report?.dropped ?? [],
    ratio: desirable > 0 && undesirable > 0 ? weightRatio(desirable, undesirable, 1, 1) : undefined,
    weights: autoWeights(desirable, undesirable),
  };
}

/** One row as a line of JSON in the layout that it has without pairs. */
export function toPlainLine(row: FeedbackRow): string {
  const { label } = row;
  if ("promptIds" in row) {
    return JSON.stringify({ prompt_ids: row.promptIds, completion_ids: row.completionIds, label });
  }
  if ("prompt" in row) return JSON.stringify({ prompt: row.prompt, completion: row.completion, label });
  const { promptMessages, completionMessages, tools, templateOptions } = row;
  return JSON.stringify({
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

/** Characters of texts and of messages' contents; of ids, their number. */
function plainLengths(rows: readonly FeedbackRow[]): DatasetReport["lengths"] {
  const content = (messages: readonly { readonly content: unknown }[]) =>
    messages.reduce((sum, { content }) => sum + textLength(content), 0);
  const lengths = rows.map((row): [number, number] => {
    if ("promptIds" in row) return [row.promptIds.length, row.completionIds.length];
    if ("prompt" in row) return [row.prompt.length, row.completion.length];
    return [content(row.promptMessages), content(row.completionMessages)];
  });
  return {
    prompt: quantiles(lengths.map(([prompt]) => prompt)),
    completion: quantiles(lengths.map(([, completion]) => completion)),
    total: quantiles(lengths.map(([prompt, completion]) => prompt + completion)),
  };
}

function textLength(content: unknown): number {
  if (typeof content === "string") return content.length;
  return content === null ? 0 : JSON.stringify(content).length;
}

/** By the nearest rank. */
export function quantiles(values: readonly number[]): LengthSummary {
  const sorted = [...values].sort((a, b) => a - b);
  const rank = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { min: rank(0), median: rank(0.5), p95: rank(0.95), max: rank(1) };
}
