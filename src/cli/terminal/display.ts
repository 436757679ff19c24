/**
 * The lines at the foot of the terminal that show what goes on: redrawn in place, kept out of the way of other text.
 * What they say is the parts' (run-part.ts, work.ts, downloads.ts); this only places the cursor and keeps time. Where
 * stderr is no terminal the parts give plain lines now and then.
 */
import type { TextSink } from "./streams.ts";
import { clipped, type Line, painted, type Theme, widthOf } from "./styled.ts";

/** Least time between two drawings of news, and the time after which lines are drawn again for their clocks. */
const REDRAW_MS = 100;
const TICK_MS = 250;
/** Work that has just begun is not told of. */
const YOUNG_MS = 250;
/** Between two plain lines of work that has news. */
const MOST_SILENT_MS = 5000;

/** What a part may use, and what it may want to say. */
export interface Room {
  /** Columns and lines that there is room for. */
  readonly columns: number;
  readonly rows: number;
  readonly theme: Theme;
  /** Milliseconds, monotone. */
  readonly now: number;
  /** How many kernels are being compiled, and how many of these are ready. */
  readonly compiling?: Compiling | undefined;
}

export interface Compiling {
  readonly done: number;
  readonly asked: number;
}

/** When a part has last had a plain line. */
export interface PlainTimes {
  readonly ageMs: number;
  /** Since anything was written, by this part or by others. */
  readonly silentMs: number;
  /** How long nothing may be written while work goes on; it grows with each line of a part that has no news. */
  readonly longestSilenceMs: number;
  /** Since the last line; undefined before the first. */
  readonly sinceMs: number | undefined;
  /** Whether something changed since. */
  readonly news: boolean;
}

/** Something that is shown while it lasts. */
export interface Part {
  lines(room: Room): readonly Line[];
  /** What is said where there is no terminal. */
  plain(now: number, compiling?: Compiling): string;
  plainDue(times: PlainTimes): boolean;
  /** After a plain line, which stays. */
  plainWritten?(): void;
  /** Whether its last state stays on the screen when it ends. */
  readonly stays: boolean;
}

export interface DisplayOptions {
  /** Whether lines can be redrawn; default: whether the stream is a terminal. */
  readonly live?: boolean;
  /** Milliseconds, monotone; for tests. */
  readonly now?: () => number;
  /** Milliseconds; default 1500, so that nobody sees two seconds of nothing. */
  readonly longestSilenceMs?: number;
  /** Since when nothing has been written, by `now`; default: since now. */
  readonly silentSince?: number | undefined;
}

interface Shown {
  readonly since: number;
  longestSilenceMs: number;
  plainAt: number | undefined;
  news: boolean;
}

export class Display {
  readonly now: () => number;
  /** What the device compiles, if a device is open. */
  compiling: (() => Compiling | undefined) | undefined;
  readonly #stream: TextSink;
  readonly #theme: Theme;
  readonly #live: boolean;
  readonly #parts = new Map<Part, Shown>();
  /** Widths of the lines on the screen. */
  #drawn: readonly number[] = [];
  #drawnAt = Number.NEGATIVE_INFINITY;
  /** When anything was written, where there is no terminal. */
  #writtenAt: number;
  readonly #longestSilenceMs: number;
  /** A line of other text is not ended yet. */
  #held = false;
  #ticking: ReturnType<typeof setInterval> | undefined;

  constructor(stream: TextSink, theme: Theme, options: DisplayOptions = {}) {
    const { live = stream.isTTY === true, now = () => performance.now(), longestSilenceMs = 1500 } = options;
    this.now = now;
    this.#writtenAt = options.silentSince ?? now();
    this.#longestSilenceMs = longestSilenceMs;
    this.#live = live;
    this.#stream = stream;
    this.#theme = theme;
  }

  add(part: Part): void {
    const longestSilenceMs = this.#longestSilenceMs;
    this.#parts.set(part, { since: this.now(), longestSilenceMs, plainAt: undefined, news: false });
    this.#ticking ??= setInterval(() => this.#tick(), TICK_MS).unref();
  }

  /** A part has something new to show. */
  changed(part: Part): void {
    const shown = this.#parts.get(part);
    if (shown === undefined) return;
    shown.news = true;
    if (!this.#live) this.#writePlain(part, shown, false);
    else if (this.now() - this.#drawnAt >= REDRAW_MS) this.redraw();
  }

  /** A part ends. Belongs in a `finally`, since errors are printed after it. */
  remove(part: Part): void {
    const shown = this.#parts.get(part);
    if (shown === undefined) return;
    this.clear();
    this.#parts.delete(part);
    if (this.#parts.size === 0) {
      clearInterval(this.#ticking);
      this.#ticking = undefined;
    }
    if (part.stays && this.#live) {
      for (const line of this.#fitting(part.lines(this.#room))) this.#stream.write(`${painted(line, this.#theme)}\n`);
    } else if (part.stays && shown.news) this.#writePlain(part, shown, true);
    this.redraw();
  }

  /** Takes the lines off the screen; the cursor is then where they began. */
  clear(): void {
    if (this.#drawn.length > 0) this.#stream.write(`${this.#toTop()}\x1b[J`);
    this.#drawn = [];
  }

  /** Takes the lines off the screen and draws nothing until `release`. */
  hold(): void {
    this.clear();
    this.#held = true;
  }

  /** Draws again, behind other text. */
  release(): void {
    this.#held = false;
    this.#writtenAt = this.now();
    this.redraw();
  }

  redraw(): void {
    if (!this.#live || this.#held) return;
    const room = this.#room;
    const lines = this.#fitting([...this.#parts.keys()].flatMap((part) => part.lines(room)));
    if (lines.length === 0) {
      this.clear();
      return;
    }
    const text = lines.map((line) => `${painted(line, this.#theme)}\x1b[K`).join("\n");
    // One write, so that no half of a picture is seen.
    this.#stream.write(`${this.#toTop()}${text}\x1b[J`);
    this.#drawn = lines.map(widthOf);
    this.#drawnAt = this.now();
  }

  get #room(): Room {
    const { columns = 80, rows = 24 } = this.#stream;
    const compiling = this.compiling?.();
    // One column stays free: a terminal may break a line that fills the last one.
    return { columns: columns - 1, rows: rows - 1, theme: this.#theme, now: this.now(), compiling };
  }

  #fitting(lines: readonly Line[]): readonly Line[] {
    const { columns, rows } = this.#room;
    return lines.slice(0, Math.max(1, rows)).map((line) => clipped(line, columns));
  }

  /** From the end of the last line to the beginning of the first; a terminal made narrower has broken lines in two. */
  #toTop(): string {
    const { columns = 80 } = this.#stream;
    const rows = this.#drawn.reduce((sum, width) => sum + Math.max(1, Math.ceil(width / columns)), 0);
    return `\r${"\x1b[A".repeat(Math.max(0, rows - 1))}`;
  }

  #tick(): void {
    if (this.#live) this.redraw();
    else for (const [part, shown] of this.#parts) this.#writePlain(part, shown, false);
  }

  #writePlain(part: Part, shown: Shown, last: boolean): void {
    const now = this.now();
    const { since, plainAt, news, longestSilenceMs } = shown;
    const sinceMs = plainAt === undefined ? undefined : now - plainAt;
    const times = { ageMs: now - since, silentMs: now - this.#writtenAt, longestSilenceMs, sinceMs, news };
    if (!last && !part.plainDue(times)) return;
    this.#stream.write(`${part.plain(now, this.compiling?.())}\n`);
    shown.plainAt = now;
    this.#writtenAt = now;
    const most = news ? Math.max(MOST_SILENT_MS, this.#longestSilenceMs) : Number.POSITIVE_INFINITY;
    shown.longestSilenceMs = Math.min(2 * longestSilenceMs, most);
    shown.news = false;
    part.plainWritten?.();
  }
}

/** Every few seconds, where there is news: lines of what counts. */
export function everyFewSeconds({ sinceMs, news }: PlainTimes): boolean {
  return news && (sinceMs === undefined || sinceMs >= 5000);
}

/** Where nothing has been written for too long, by whomever; of work without news ever more seldom. */
export function breaksSilence({ ageMs, silentMs, longestSilenceMs }: PlainTimes): boolean {
  return silentMs >= longestSilenceMs && ageMs >= YOUNG_MS;
}
