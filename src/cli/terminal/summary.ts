/** The table at the end of a training run: what its measures came to, whether it learnt, and where everything lies. */
import type { MeasuredChange, RunVerdict } from "../../kto/report/verdict.ts";
import { formatShare } from "./numbers.ts";
import { clipped, type Line, padded, type Span, span, widthOf, wrapped } from "./styled.ts";

/** A file or folder of the run, and what it is. */
export interface OutputPlace {
  readonly what: string;
  readonly path: string;
}

const NAME_COLUMNS = 19;
const VALUE_COLUMNS = 9;
/** With the space before it. */
const INTERVAL_COLUMNS = 20;
/** Prose reads badly in longer lines. */
const WIDEST_TEXT = 100;

export function summaryLines(
  verdict: RunVerdict | undefined,
  places: readonly OutputPlace[],
  columns: number,
): readonly Line[] {
  const told =
    verdict === undefined ? [] : [...tableLines(verdict.findings, columns), [], ...verdictLines(verdict, columns), []];
  const width = Math.max(...places.map(({ what }) => what.length));
  // Whole, also where it is longer than the line: it is there to be copied.
  const where = places.map(({ what, path }) => [span(`${what.padEnd(width)}  `, "faint"), span(path)]);
  return [[], ...told, ...where];
}

function tableLines(findings: readonly MeasuredChange[], columns: number): Line[] {
  const isNarrow = columns < NAME_COLUMNS + 2 * VALUE_COLUMNS + INTERVAL_COLUMNS;
  const head = ["first", "last"].map((name) => name.padStart(VALUE_COLUMNS)).join("");
  const title = `${" ".repeat(NAME_COLUMNS)}${head}${isNarrow ? "" : "   95% interval"}`;
  const rows = findings.flatMap((finding) => {
    const { name, first, last, interval, note } = finding;
    const show = (value: number | undefined) => shownValue(value, finding).padStart(VALUE_COLUMNS);
    const values: Span[] = [span(name.padEnd(NAME_COLUMNS), "faint"), span(show(first)), span(show(last), "strong")];
    const range = interval ? `${shownValue(interval.low, finding)} to ${shownValue(interval.high, finding)}` : "";
    if (isNarrow) {
      const below: Line[] = range === "" ? [] : [[span(`  95% interval ${range}`, "faint")]];
      return [values as Line, ...below];
    }
    const line: Line = range === "" ? values : [...values, span(`   ${range}`)];
    const whole = [...padded(line, widthOf(values) + INTERVAL_COLUMNS), span(`  ${note}`, "faint")];
    return [note !== "" && widthOf(whole) <= columns ? whole : line];
  });
  return [[span(title, "faint")], ...rows].map((line) => clipped(line, columns));
}

function verdictLines({ outcome, text }: RunVerdict, columns: number): Line[] {
  const tone = { yes: "good", no: "bad", open: "caution" } as const;
  const [first = "", ...rest] = wrapped(text, Math.min(columns, WIDEST_TEXT));
  // The colour only repeats what the words say.
  const end = first.search(/[:.]/);
  const [head, tail] = [first.slice(0, end < 0 ? undefined : end), end < 0 ? "" : first.slice(end)];
  return [[span(head, tone[outcome]), span(tail)], ...rest.map((line) => [span(line)])];
}

function shownValue(value: number | undefined, { name, isShare }: MeasuredChange): string {
  if (value === undefined) return "";
  if (isShare) return formatShare(value);
  const digits = value.toFixed(3);
  return name.endsWith("margin") && value >= 0 ? `+${digits}` : digits;
}
