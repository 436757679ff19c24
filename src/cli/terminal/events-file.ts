/**
 * events.jsonl: what the run said, warnings included, whether or not the terminal showed it. What is said before the run
 * has its folder is kept until then; a run that is refused writes nothing. A file that cannot be written is told once.
 */
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError } from "../../errors.ts";
import { EVENTS_FILE, type EventLine } from "../../kto/run/event-line.ts";
import { linesUpTo } from "./step-lines.ts";

/** A message may quote a row. */
const MOST_CHARACTERS = 2000;
/** Lines of a run at most: one that warns at every update must not fill the disk. */
const MOST_LINES = 20_000;

export class EventsFile {
  /** Updates done. */
  step = 0;
  readonly #path: string;
  readonly #warn: (sentence: string) => void;
  readonly #now: () => Date;
  /** Said before the file began. */
  #early: EventLine[] | undefined = [];
  #lines = 0;
  #broken = false;
  /** One line after another, while the run goes on. */
  #writing: Promise<void> = Promise.resolve();

  constructor(folder: string, warn: (sentence: string) => void, now: () => Date = () => new Date()) {
    this.#path = platform.joinPath(folder, EVENTS_FILE);
    this.#warn = warn;
    this.#now = now;
  }

  take(level: EventLine["level"], text: string): void {
    const line = { step: this.step, time: this.#now().toISOString(), level, text: text.slice(0, MOST_CHARACTERS) };
    if (this.#early) this.#early.push(line);
    else this.#append([line]);
  }

  /** Begins the file; that of an earlier run is cut back to the step from which the run goes on. */
  async start(step: number): Promise<void> {
    this.step = step;
    const kept = await linesUpTo(this.#path, step);
    const early = (this.#early ?? []).map((line) => ({ ...line, step }));
    this.#lines = kept.length + early.length;
    try {
      await platform.writeFileAtomic(this.#path, [...kept, ...early.map(textOf)].join(""));
    } catch (error) {
      this.#fail(error);
    }
    const later = (this.#early ?? []).slice(early.length);
    this.#early = undefined;
    this.#append(later);
  }

  /** Waits for the lines that are not written yet. */
  async end(): Promise<void> {
    await this.#writing;
  }

  #append(lines: readonly EventLine[]): void {
    const room = Math.max(0, MOST_LINES - this.#lines);
    const text = lines.slice(0, room).map(textOf);
    this.#lines += text.length;
    if (text.length === 0) return;
    this.#writing = this.#writing.then(async () => {
      if (this.#broken) return;
      try {
        await platform.append(this.#path, text.join(""));
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  #fail(error: unknown): void {
    if (!(error instanceof FileError)) throw error;
    if (this.#broken) return;
    this.#broken = true;
    this.#warn(`${errorMessage(error)} The training goes on, and writes no more of what it says.`);
  }
}

function textOf(line: EventLine): string {
  return `${JSON.stringify(line)}\n`;
}
