/**
 * Work that takes a moment (loading, tokenizing, evaluating, sampling, saving) on one line of the display: what it is,
 * how far it is, how long it has taken. Nobody should wonder for two seconds whether anything goes on.
 */

import { bar } from "./bars.ts";
import { breaksSilence, type Compiling, type Display, type Part, type Room } from "./display.ts";
import { formatCount, formatDuration } from "./numbers.ts";
import type { Output } from "./output.ts";
import { type Line, type Span, span, widthOf } from "./styled.ts";

/** Work that ends sooner is not shown. */
const SHOWN_AFTER_MS = 300;

const SPINNER = { unicode: "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", ascii: "|/-\\" } as const;
const SPINNER_MS = 250;
const BAR_COLUMNS = 24;

export interface Work {
  readonly what: string;
  /** When it began. */
  readonly since: number;
  readonly done?: number | undefined;
  readonly total?: number | undefined;
  /** What is counted where there is no total, such as "tokens". */
  readonly unit?: string | undefined;
}

/** The line of a piece of work, at most `columns` wide; none while it is young. */
export function workLines(work: Work, { columns, now, theme, compiling }: Room): readonly Line[] {
  const ageMs = now - work.since;
  if (ageMs < SHOWN_AFTER_MS) return [];
  const signs = theme.unicode ? SPINNER.unicode : SPINNER.ascii;
  const sign = signs[Math.floor(ageMs / SPINNER_MS) % signs.length] ?? "";
  const { done, total, unit } = work;
  const share = done !== undefined && total !== undefined && total > 0 ? Math.min(1, done / total) : undefined;
  const progress: Span[] = [];
  if (share !== undefined) {
    const parts = bar(share, BAR_COLUMNS, theme);
    progress.push(span("  "), span(parts.done, "accent"), span(parts.left, "faint"), span(` ${percent(share)}`));
  } else if (done !== undefined) progress.push(span(`  ${formatCount(done)}${unit === undefined ? "" : ` ${unit}`}`));
  const compiles = compiling ? [span(`  compiling kernels: ${compiling.done} of ${compiling.asked}`, "faint")] : [];
  const head = [span(`${sign} `, "accent"), span(work.what)];
  const clock = span(`  ${formatDuration(ageMs / 1000)}`, "faint");
  const short = share === undefined ? progress : [span(`  ${percent(share)}`)];
  const candidates: Line[] = [
    [...head, ...progress, ...compiles, clock],
    [...head, ...short, ...compiles, clock],
    [...head, ...progress, clock],
    [...head, ...short, clock],
  ];
  return [candidates.find((line) => widthOf(line) <= columns) ?? [...head, clock]];
}

function percent(share: number): string {
  return `${Math.floor(100 * share)}%`.padStart(4);
}

/** ", compiling kernels: 3 of 12". */
export function compilingText(compiling: Compiling | undefined): string {
  return compiling ? `, compiling kernels: ${compiling.done} of ${compiling.asked}` : "";
}

class WorkPart implements Part {
  readonly stays = false;
  plainDue = breaksSilence;
  work: Work;

  constructor(work: Work) {
    this.work = work;
  }

  lines(room: Room): readonly Line[] {
    return workLines(this.work, room);
  }

  plain(now: number, compiling?: Compiling): string {
    const { what, since, done, total, unit } = this.work;
    const far = done === undefined ? "" : total ? `: ${done} of ${total}` : `: ${done}${unit ? ` ${unit}` : ""}`;
    return `${what}${far}${compilingText(compiling)}, ${formatDuration((now - since) / 1000)} so far`;
  }
}

/** Work that tells of itself by events, shown from its first news to its last. */
export class ToldWork {
  readonly #display: Display | undefined;
  #part: WorkPart | undefined;

  constructor({ display }: Pick<Output, "display">) {
    this.#display = display;
  }

  tell(what: string, done: number, total: number): void {
    const display = this.#display;
    if (display === undefined) return;
    if (this.#part?.work.what !== what) this.end();
    if (this.#part === undefined) {
      this.#part = new WorkPart({ what, since: display.now() });
      display.add(this.#part);
    }
    this.#part.work = { ...this.#part.work, done, total };
    display.changed(this.#part);
    if (done >= total) this.end();
  }

  /** Also where the work was broken off. */
  end(): void {
    if (this.#part) this.#display?.remove(this.#part);
    this.#part = undefined;
  }
}

/** Tells how much is done, and of how much where that is known. */
export type Progress = (done: number, total?: number) => void;

/**
 * Runs `body` and shows that it goes on.
 *
 * @param what it is, such as "loading ./model"
 * @param unit of what is counted where there is no total
 */
export async function working<T>(
  { display }: Pick<Output, "display">,
  what: string,
  body: (progress: Progress) => Promise<T>,
  unit?: string,
): Promise<T> {
  if (display === undefined) return await body(() => undefined);
  const part = new WorkPart({ what, since: display.now(), unit });
  display.add(part);
  try {
    return await body((done, total) => {
      part.work = { ...part.work, done, total };
      display.changed(part);
    });
  } finally {
    display.remove(part);
  }
}
