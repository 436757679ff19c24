/** What a run's folder says in words: its events, the texts of rows, and what it was started with. */
import { platform } from "../engine/platform/index.ts";
import type { FileSource } from "../engine/platform/platform.ts";
import { FileError } from "../errors.ts";
import { EVENTS_FILE, type EventLine, eventLineSchema } from "../kto/run/event-line.ts";
import { ROWS_FILE, type RowLine, rowLineSchema } from "../kto/run/row-line.ts";
import { RUN_FILE, type RunFacts, runFactsSchema } from "../kto/run/run-facts.ts";
import { type FoundLine, GrowingLines } from "./growing-lines.ts";
import type { EventsAnswer } from "./protocol.ts";

/** Events that are kept: the last ones, and the first warnings and errors. */
const MOST_EVENTS = 200;
const MOST_WARNINGS = 200;
/** Rows whose places are kept. */
const MOST_ROWS = 100_000;
/** Texts of rows that are kept: those that stand out change little from one look to the next. */
const MOST_TEXTS = 200;
/** A run.json that is larger is none of a run's. */
const MOST_BYTES = 2 ** 20;

type RowText = Pick<RowLine, "prompt" | "completion">;

export class RunNotes {
  readonly #folder: string;
  readonly #files: FileSource;
  readonly #events: GrowingLines;
  readonly #rows: GrowingLines;
  #last: EventLine[] = [];
  #warnings: EventLine[] = [];
  #count = 0;
  #warningCount = 0;
  /** Where the lines of rows.jsonl lie, by the row. */
  readonly #places = new Map<number, Pick<FoundLine, "offset" | "length">>();
  readonly #texts = new Map<number, RowText>();

  constructor(folder: string, files: FileSource = platform) {
    this.#folder = folder;
    this.#files = files;
    this.#events = new GrowingLines(platform.joinPath(folder, EVENTS_FILE), files);
    this.#rows = new GrowingLines(platform.joinPath(folder, ROWS_FILE), files);
  }

  /** Reads what is new. @returns whether there was anything */
  async read(): Promise<boolean> {
    const events = await this.#events.read(
      ({ text }) => this.#take(text),
      () => {
        [this.#last, this.#warnings] = [[], []];
        [this.#count, this.#warningCount] = [0, 0];
      },
    );
    const rows = await this.#rows.read(
      ({ text, offset, length }) => {
        const index = Number(/^\{"step":\d+,"index":(\d+),/.exec(text)?.[1] ?? Number.NaN);
        if (Number.isInteger(index) && this.#places.size < MOST_ROWS) this.#places.set(index, { offset, length });
      },
      () => {
        this.#places.clear();
        this.#texts.clear();
      },
    );
    return events || rows;
  }

  #take(text: string): void {
    const event = lineOf(text, eventLineSchema);
    if (event === undefined) return;
    this.#count++;
    this.#last.push(event);
    if (this.#last.length > 2 * MOST_EVENTS) this.#last = this.#last.slice(-MOST_EVENTS);
    if (event.level === "info") return;
    this.#warningCount++;
    if (this.#warnings.length < MOST_WARNINGS) this.#warnings.push(event);
  }

  get count(): number {
    return this.#count;
  }

  /** Warnings and errors. */
  get warningCount(): number {
    return this.#warningCount;
  }

  get events(): EventsAnswer {
    const last = this.#last.slice(-MOST_EVENTS);
    const older = this.#warnings.filter((event) => !last.includes(event));
    return { count: this.#count, events: [...older, ...last].reverse() };
  }

  /** The text of a row of the feedback; undefined where the run wrote none, or it is damaged. */
  async rowText(index: number): Promise<RowText | undefined> {
    const place = this.#places.get(index);
    if (place === undefined) return undefined;
    const known = this.#texts.get(index);
    if (known !== undefined) return known;
    const line = lineOf(await this.#rows.textAt(place), rowLineSchema);
    if (line?.index !== index) return undefined;
    const text = { prompt: line.prompt, completion: line.completion };
    if (this.#texts.size >= MOST_TEXTS) this.#texts.clear();
    this.#texts.set(index, text);
    return text;
  }

  /** What the run was started with; undefined where that is not there, or damaged. */
  async facts(): Promise<RunFacts | undefined> {
    const path = platform.joinPath(this.#folder, RUN_FILE);
    if ((await this.#files.exists(path)) !== "file") return undefined;
    try {
      const file = await this.#files.openFile(path);
      try {
        if (file.size > MOST_BYTES) return undefined;
        return lineOf(new TextDecoder().decode(await file.read(0, file.size)), runFactsSchema);
      } finally {
        await file.close();
      }
    } catch (error) {
      if (error instanceof FileError) return undefined; // it is being replaced
      throw error;
    }
  }
}

interface Schema<T> {
  safeParse(value: unknown): { readonly data?: T };
}

function lineOf<T>(text: string, schema: Schema<T>): T | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
