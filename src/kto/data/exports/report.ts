/** What becomes of the ratings of exports in numbers. Of raters there is nothing in it. */
import { counted } from "../../../errors.ts";
import type { ExportRow, Rating, Reason } from "./types.ts";

export interface ThumbCounts {
  readonly up: number;
  readonly down: number;
}

/** The report on one reading of exports. */
export interface ExportReport {
  /** The names of the shapes, each once, in the order of the files. */
  readonly shapes: readonly string[];
  /** Rows = ratings - dropped. */
  readonly rows: number;
  readonly ratings: number;
  /** In the order of the ratings, each with the id that its record has in the export. */
  readonly dropped: readonly { readonly id: string | number; readonly reason: Reason }[];
  /** Answers that nobody rated. */
  readonly unrated: number;
  /** Rows whose answer refers to documents, which the model saw and the file lacks. */
  readonly withCitations: number;
  /** Rows by the model that answered, and by the day of the rating, where the export has them. */
  readonly byModel: Readonly<Record<string, ThumbCounts>>;
  readonly byDay: Readonly<Record<string, ThumbCounts>>;
  /** Sentences without a full stop, to show once. */
  readonly notes: readonly string[];
}

/** Models that are counted one by one; a damaged file could name a new one in each record. */
const mostNames = 1000;

export class ReportBuilder {
  readonly #shapes = new Set<string>();
  readonly #notes = new Set<string>();
  readonly #dropped: { id: string | number; reason: Reason }[] = [];
  readonly #byModel = new Map<string, { up: number; down: number }>();
  readonly #byDay = new Map<string, { up: number; down: number }>();
  readonly #counts = { up: 0, down: 0 };
  #unrated = 0;
  #withCitations = 0;

  addShape(name: string, note: string | undefined): void {
    this.#shapes.add(name);
    if (note !== undefined) this.#notes.add(note);
  }

  addUnrated(): void {
    this.#unrated++;
  }

  addDropped({ id }: Rating, reason: Reason): void {
    this.#dropped.push({ id, reason });
  }

  addRow({ label }: ExportRow, { model, day }: Rating, cites: boolean): void {
    const side = label ? "up" : "down";
    this.#counts[side]++;
    if (cites) this.#withCitations++;
    for (const [name, counts] of [
      [model, this.#byModel],
      [day, this.#byDay],
    ] as const) {
      if (name === undefined || (counts.size >= mostNames && !counts.has(name))) continue;
      const found = counts.get(name) ?? { up: 0, down: 0 };
      counts.set(name, found);
      found[side]++;
    }
  }

  report(): ExportReport {
    const { up, down } = this.#counts;
    const byName = (counts: ReadonlyMap<string, ThumbCounts>) =>
      Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
    const oneClass = up + down > 0 && (up === 0 || down === 0);
    return {
      shapes: [...this.#shapes],
      rows: up + down,
      ratings: up + down + this.#dropped.length,
      dropped: this.#dropped,
      unrated: this.#unrated,
      withCitations: this.#withCitations,
      byModel: byName(this.#byModel),
      byDay: byName(this.#byDay),
      notes: [
        ...this.#notes,
        ...(oneClass
          ? [`all thumbs of the rows are ${up > 0 ? "up" : "down"}, and KTO learns from the difference of both`]
          : []),
      ],
    };
  }
}

/** What a user should know of ratings that give no row, and of the program's exports. */
export function warningsOf(report: ExportReport): string[] {
  const { dropped, notes } = report;
  const sentences = notes.map((note) => `${note}.`);
  if (dropped.length === 0) return sentences;
  const count = counted(dropped.length, "rating gives", "ratings give");
  return [
    `${count} no row: ${droppedInWords(report)}; kto data --json lists them, docs/thumbs.md explains the reasons.`,
    ...sentences,
  ];
}

/** "3 attachment, 2 empty", most frequent first; "" if nothing was dropped. */
export function droppedInWords({ dropped }: Pick<ExportReport, "dropped">): string {
  const counts = new Map<Reason, number>();
  for (const { reason } of dropped) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([reason, count]) => `${count} ${reason}`)
    .join(", ");
}
