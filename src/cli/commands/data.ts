/** `kto data`: shows a feedback file as training will see it; with --output, converts it to TRL's plain layout. */
import { exactText } from "../../engine/files/exact-json.ts";
import { datasetParts } from "../../engine/hub/resolve.ts";
import { readModelConfig } from "../../engine/model/config/folder.ts";
import { platform } from "../../engine/platform/index.ts";
import { decodeContinuation, loadTokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, counted } from "../../errors.ts";
import type { ExportReport } from "../../kto/data/exports/report.ts";
import { type FeedbackSummary, summarizeRows, toPlainLine } from "../../kto/data/summary.ts";
import type {
  ChatMessage,
  DatasetReport,
  Example,
  FeedbackRow,
  FeedbackRows,
  LengthSummary,
} from "../../kto/data/types.ts";
import { placeOf } from "../../kto/data/types.ts";
import { type DataOptions, dataDescription } from "../descriptions/data.ts";
import { command } from "../options/command.ts";
import { modelFolders } from "../session/models.ts";
import { encodeFeedback, readRows } from "../session/rows.ts";
import { colorsFor } from "../terminal/colors.ts";
import { checkOutputFile, isSameFile } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";

/** Number of rendered examples that are shown. */
const shownExamples = 3;
/** Models of an export whose thumbs are shown. */
const shownModels = 10;
/** Characters of a prompt and of a completion that are shown. */
const shownCharacters = 600;

export default command(dataDescription, runData);

/** A prompt and its completion as text that the model sees. */
interface Rendered {
  readonly place: string;
  readonly label: boolean;
  readonly prompt: string;
  readonly completion: string;
}

interface Tokenized {
  readonly report: DatasetReport;
  readonly rendered: readonly Rendered[];
}

async function runData(options: DataOptions, output: Output): Promise<void> {
  if (options.output !== undefined) {
    await checkOutputFile(options.output);
    for (const part of await datasetParts(options.dataset_name)) {
      if (!(await isSameFile(options.output, part))) continue;
      throw new ConfigError(`output "${options.output}" is the feedback file itself: choose another name.`);
    }
  }
  let layout = "";
  let exported: ExportReport | undefined;
  const rows = await readRows(options, output, {
    onLayout: (found) => {
      layout = found;
    },
    onExport: (report) => {
      exported = report;
    },
  });
  const tokenized = await tokenize(rows, options, output);
  const summary = await summarizeRows(rows, tokenized?.report);
  const rendered = tokenized?.rendered ?? (await firstRows(rows, shownExamples)).map(renderPlain);
  if (options.output !== undefined) await platform.writeFileAtomic(options.output, lines(rows));
  if (output.json) {
    const file = options.dataset_name;
    output.jsonLine({ file, layout, ...jsonSummary(summary, exported), examples: rendered });
    return;
  }
  print(layout, summary, rendered, exported, output);
  if (options.output !== undefined)
    output.info(`${counted(summary.rows, "row was", "rows were")} written to ${options.output}.`);
}

async function firstRows(rows: FeedbackRows, count: number): Promise<FeedbackRow[]> {
  const first: FeedbackRow[] = [];
  for await (const row of rows) {
    if (first.push(row) === count) break;
  }
  return first;
}

async function tokenize(rows: FeedbackRows, options: DataOptions, output: Output): Promise<Tokenized | undefined> {
  if (options.model_name_or_path === undefined) return undefined;
  const names = { model_name_or_path: options.model_name_or_path, model_revision: options.model_revision };
  const { base: folder } = await modelFolders(names, output, false);
  const policy = { folder, config: await readModelConfig(folder) };
  const { examples, report } = await encodeFeedback(rows, { policy }, options, output);
  for (const sentence of report.advice) output.warning(sentence);
  const hasTokenizer = (await platform.exists(platform.joinPath(folder, "tokenizer.json"))) !== undefined;
  const tokenizer = hasTokenizer ? await loadTokenizer(folder) : undefined;
  const texts = ({ promptIds, completionIds }: Example) =>
    tokenizer
      ? { prompt: tokenizer.decode(promptIds), completion: decodeContinuation(tokenizer, promptIds, completionIds, {}) }
      : { prompt: `[${promptIds.join(", ")}]`, completion: `[${completionIds.join(", ")}]` };
  const rendered = examples
    .slice(0, shownExamples)
    .map((example) => ({ place: placeOf(example.source), label: example.label, ...texts(example) }));
  return { report, rendered };
}

/** Without a model there is no chat template, so messages are shown with their roles. */
function renderPlain(row: FeedbackRow): Rendered {
  const place = placeOf(row.source);
  const { label } = row;
  if ("promptIds" in row) {
    return { place, label, prompt: `[${row.promptIds.join(", ")}]`, completion: `[${row.completionIds.join(", ")}]` };
  }
  if ("prompt" in row) return { place, label, prompt: row.prompt, completion: row.completion };
  const tools = row.tools === undefined ? "" : `[tools] ${exactText(row.tools)}\n`;
  const prompt = `${tools}${turnsText(row.promptMessages)}\n`;
  return { place, label, prompt, completion: turnsText(row.completionMessages) };
}

/** Messages, a line or more each: role and text, then every other field that a template may read, such as tool calls. */
function turnsText(messages: readonly ChatMessage[]): string {
  return messages
    .flatMap(({ role, content, ...fields }) => {
      const text = typeof content === "string" ? content : content === null ? "" : exactText(content);
      const others = Object.entries(fields).map(([name, value]) => `  ${name}: ${exactText(value)}`);
      return [text === "" ? `[${role}]` : `[${role}] ${text}`, ...others];
    })
    .join("\n");
}

async function* lines(rows: FeedbackRows): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  for await (const row of rows) yield encoder.encode(`${toPlainLine(row)}\n`);
}

/** What is dropped is what gave no row, by its id in the export, and then what gave no example. */
function jsonSummary(summary: FeedbackSummary, exported: ExportReport | undefined): Record<string, unknown> {
  const { weights, dropped, lengths } = summary;
  return {
    rows: summary.rows,
    kept: summary.kept,
    desirable: summary.desirable,
    undesirable: summary.undesirable,
    pairs: summary.pairs,
    distinct_prompts: summary.distinctPrompts,
    distinct_completions: summary.distinctCompletions,
    repeated_rows: summary.repeatedRows,
    contradictions: summary.contradictions,
    length_unit: summary.unit,
    lengths,
    cut: summary.cut,
    dropped: [
      ...(exported?.dropped ?? []),
      ...dropped.map(({ reason, count, firstLines }) => ({ reason, count, first_lines: firstLines })),
    ],
    ...(exported === undefined ? {} : { export: jsonExport(exported) }),
    weight_ratio: summary.ratio ?? null,
    suggested_desirable_weight: weights.desirable,
    suggested_undesirable_weight: weights.undesirable,
  };
}

function jsonExport(report: ExportReport): Record<string, unknown> {
  return {
    shapes: report.shapes,
    ratings: report.ratings,
    rows: report.rows,
    unrated: report.unrated,
    with_citations: report.withCitations,
    by_model: report.byModel,
    by_date: report.byDay,
  };
}

function print(
  layout: string,
  summary: FeedbackSummary,
  rendered: readonly Rendered[],
  exported: ExportReport | undefined,
  output: Output,
): void {
  const { desirable, undesirable, pairs, unit, lengths, dropped, weights, ratio } = summary;
  const line = (name: string, text: string) => output.result(`${name.padEnd(14)}${text}`);
  line("layout", layout);
  const pairsText = pairs > 0 ? ` (${counted(pairs, "pair")})` : "";
  line("rows", `${summary.rows}${pairsText}: ${desirable} desirable, ${undesirable} undesirable`);
  for (const [model, { up, down }] of Object.entries(exported?.byModel ?? {}).slice(0, shownModels)) {
    line("model", `${safe(model)}: ${up} up, ${down} down`);
  }
  if (summary.kept !== summary.rows) line("kept", String(summary.kept));
  for (const { reason, count, firstLines } of dropped) {
    line("dropped", `${count}: ${reason} (line ${firstLines.join(", ")}${count > firstLines.length ? ", …" : ""})`);
  }
  if (summary.cut > 0) line("cut", `${counted(summary.cut, "completion")}, to the length limit`);
  line(
    "distinct",
    `${counted(summary.distinctPrompts, "prompt")}, ${counted(summary.distinctCompletions, "completion")}`,
  );
  if (summary.repeatedRows > 0)
    line("repeated", `${counted(summary.repeatedRows, "row says", "rows say")} again what an earlier one says`);
  if (summary.contradictions > 0) {
    line(
      "contradicted",
      `${counted(summary.contradictions, "completion is", "completions are")} both desirable and undesirable for one prompt`,
    );
  }
  const quantiles = ({ min, median, p95, max }: LengthSummary) =>
    `min ${min}, median ${median}, p95 ${p95}, max ${max}`;
  line("prompt", `${quantiles(lengths.prompt)} ${unit}`);
  line("completion", `${quantiles(lengths.completion)} ${unit}`);
  line("together", `${quantiles(lengths.total)} ${unit}`);
  if (ratio === undefined) line("weights", "one class is absent, so there is nothing to balance");
  else {
    const three = (value: number) => String(Number(value.toPrecision(4)));
    const inRange = ratio >= 1 && ratio <= 1.5 ? "inside" : "outside";
    line(
      "weights",
      `at 1 and 1 the classes weigh ${three(ratio)} : 1, ${inRange} [1, 1.5]; auto for both sets desirable_weight ${three(weights.desirable)}, undesirable_weight ${three(weights.undesirable)}`,
    );
  }
  const colors = colorsFor(output.streams.stdout);
  const colored = colors.isColorSupported;
  for (const { place, label, prompt, completion } of rendered) {
    output.result("");
    output.result(`--- ${place}, ${label ? "desirable" : "undesirable"}`);
    const begin = prompt.length > shownCharacters ? `…${prompt.slice(-shownCharacters)}` : prompt;
    const end = completion.length > shownCharacters ? `${completion.slice(0, shownCharacters)}…` : completion;
    const marked = label ? colors.green(safe(end)) : colors.red(safe(end));
    output.result(`${safe(begin)}${colored ? marked : `>>>${safe(end)}<<<`}`);
  }
}

/** Escapes control characters, which could otherwise command the terminal. */
function safe(text: string): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
