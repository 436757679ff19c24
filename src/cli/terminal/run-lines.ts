/** Draws the state of a training run (run-view.ts) for a room: a head with a bar, the metrics with their curves, a foot. */
import { mebibytes } from "../../errors.ts";
import { bar, NO_CURVE, sparkline } from "./bars.ts";
import type { Room } from "./display.ts";
import { formatCount, formatDuration, formatMetric } from "./numbers.ts";
import { plainProgress } from "./progress.ts";
import { deviceBytes, type RunView, SHOWN_METRICS, type ShownMetric, secondsLeft } from "./run-view.ts";
import { type Line, padded, type Span, span, type Tone, widthOf } from "./styled.ts";

const GAP = 3;
const WIDEST_BAR = 40;
const WIDEST_CURVE = 32;
/** Columns of a metric's name and value. */
const NAME_COLUMNS = 9;
const VALUE_COLUMNS = 7;
/** With fewer columns or lines there is one line in place of the picture. */
const LEAST_ROOM = { columns: 36, rows: 9 } as const;
/** Two metrics side by side, and three. */
const COLUMNS_OF_TWO = 52;
const COLUMNS_OF_THREE = 96;
/** An update that takes longer gets a clock of its own. */
const LONG_UPDATE_MS = 2000;

export function runLines(view: RunView, room: Room): readonly Line[] {
  const { columns, rows } = room;
  if (columns < LEAST_ROOM.columns || rows < LEAST_ROOM.rows) {
    return [[span(plainProgress(view, columns))]];
  }
  return [headLine(view, room), ...metricLines(view, room), footLine(view, room)];
}

function headLine(view: RunView, { columns, theme }: Room): Line {
  const { step, totalSteps } = view;
  const share = totalSteps > 0 ? step / totalSteps : 1;
  const count = `${String(step).padStart(String(totalSteps).length)}/${totalSteps}`;
  const left = secondsLeft(view);
  const tail = `${Math.floor(100 * share)}%`.padStart(5) + (left === undefined ? "" : `  ${formatDuration(left)} left`);
  const head = `update ${count}  `;
  const width = Math.min(WIDEST_BAR, columns - head.length - tail.length);
  const parts = bar(share, Math.max(0, width), theme);
  return [span(head, "strong"), span(parts.done, "accent"), span(parts.left, "faint"), span(tail)];
}

/** Nothing before the first logging window: there is nothing to say yet. */
function metricLines(view: RunView, room: Room): Line[] {
  if (Object.keys(view.metrics).length === 0) return [];
  const groups = SHOWN_METRICS[view.method];
  const { columns } = room;
  const rows =
    columns >= COLUMNS_OF_THREE ? transposed(groups) : columns >= COLUMNS_OF_TWO ? pairs(groups) : singles(groups);
  const most = Math.max(...rows.map(({ length }) => length));
  const width = Math.floor((columns - GAP * (most - 1)) / most);
  return rows.map((row) =>
    row.flatMap((shown, at) => {
      const cell = metricCell(view, shown, Math.min(width, NAME_COLUMNS + VALUE_COLUMNS + 1 + WIDEST_CURVE), room);
      return at < row.length - 1 ? [...cell, span(" ".repeat(GAP))] : cell;
    }),
  );
}

function metricCell(view: RunView, { metric, short }: ShownMetric, width: number, { theme }: Room): Line {
  const value = view.metrics[metric];
  const text = formatMetric(metric, value).padStart(VALUE_COLUMNS);
  const head = [span(short.padEnd(NAME_COLUMNS), "faint"), span(text, toneOf(metric, value))];
  const curve = sparkline(view.curves[metric] ?? NO_CURVE, Math.max(0, width - widthOf(head) - 1), theme);
  return padded([...head, span(" "), span(curve, "accent")], width);
}

/** The margin is what KTO is for; the other metrics may rise or fall while all is well. */
function toneOf(metric: string, value: number | undefined): Tone {
  if (metric !== "rewards/margins" || value === undefined || value === 0) return "strong";
  return value > 0 ? "good" : "bad";
}

/** Speed, memory, time, and what is out of the ordinary, which comes first; what does not fit is left out. */
function footLine(view: RunView, { columns, now, compiling }: Room): Line {
  const { metrics, step, since, stepAt } = view;
  const { tokens_per_second: speed, skipped_steps: skipped = 0, saturated = 0 } = metrics;
  const bytes = deviceBytes(view);
  const parts: Span[] = [
    ...(compiling ? [span(`compiling kernels: ${compiling.done} of ${compiling.asked}`, "accent")] : []),
    ...(skipped > 0 ? [span(`${skipped} skipped`, "caution")] : []),
    ...(saturated >= 0.5 ? [span(`${Math.round(100 * saturated)}% saturated`, "caution")] : []),
    ...(now - stepAt > LONG_UPDATE_MS && stepAt > since && step < view.totalSteps
      ? [span(`update ${step + 1} since ${formatDuration((now - stepAt) / 1000)}`)]
      : []),
    ...(speed === undefined ? [] : [span(`${formatCount(speed)} tokens/s`)]),
    ...(bytes === undefined ? [] : [span(`device ${mebibytes(bytes)}`)]),
    span(`${formatDuration((now - since) / 1000)} so far`),
  ];
  const line: Span[] = [];
  for (const part of parts) {
    const longer = line.length === 0 ? [part] : [...line, span(" ".repeat(GAP)), part];
    if (widthOf(longer) <= columns) line.splice(0, line.length, ...longer);
  }
  return line.map(({ text, tone }) => span(text, tone === "plain" ? "faint" : tone));
}

type Groups = readonly (readonly ShownMetric[])[];

/** A group in each column. */
function transposed(groups: Groups): ShownMetric[][] {
  const [first = []] = groups;
  return first.map((_, row) => groups.flatMap((group) => group[row] ?? []));
}

/** Two metrics in each line. */
function pairs(groups: Groups): ShownMetric[][] {
  const all = singles(groups).flat();
  return Array.from({ length: Math.ceil(all.length / 2) }, (_, row) => all.slice(2 * row, 2 * row + 2));
}

function singles(groups: Groups): ShownMetric[][] {
  return groups.flat().map((metric) => [metric]);
}
