/**
 * TensorBoard: an event file in a folder, with the scalars under the names that transformers gives them (train/loss,
 * eval/loss) and the configuration as a text. A run that goes on begins a new file in the same folder, at whose start
 * TensorBoard drops what the earlier one logged beyond the checkpoint.
 */
import { joined } from "../../../engine/bytes.ts";
import { platform } from "../../../engine/platform/index.ts";
import { type EventContent, eventRecord } from "./event-file.ts";
import type { TrackedLine, Tracker } from "./tracker.ts";

export interface TensorBoardOptions {
  /** Where the event file is written; created if it does not exist. */
  readonly folder: string;
  /** Shown under TensorBoard's Text. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Updates that were done when a run goes on; undefined for a new one. */
  readonly resumedAfter: number | undefined;
}

/** Where transformers puts event files by default, in the folder of a run. */
export const RUNS_FOLDER = "runs";

const EVAL_PREFIX = "eval_";

/** transformers' `rewrite_logs`. */
export function tensorBoardName(name: string): string {
  return name.startsWith(EVAL_PREFIX) ? `eval/${name.slice(EVAL_PREFIX.length)}` : `train/${name}`;
}

/** transformers' `default_logdir`: `<output_dir>/runs/Nov30_14-05-09_<host>`, local time. */
export function defaultLoggingFolder(outputFolder: string, now: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const month = now.toLocaleString("en-US", { month: "short" });
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join("-");
  return platform.joinPath(outputFolder, RUNS_FOLDER, `${month}${two(now.getDate())}_${time}_${platform.hostName()}`);
}

/** Files that this process has begun, so that no two have the same name. */
let filesBegun = 0;

export class TensorBoard implements Tracker {
  readonly name = "TensorBoard";
  readonly #options: TensorBoardOptions;
  /** undefined before the first record, and after a write that failed and may have left a part of a record. */
  #path: string | undefined;

  constructor(options: TensorBoardOptions) {
    this.#options = options;
  }

  /** @throws FileError for a folder that cannot be written */
  async start(): Promise<void> {
    const { folder, config, resumedAfter } = this.#options;
    await platform.makeFolder(folder);
    const session: EventContent[] = resumedAfter === undefined ? [] : [{ sessionStarts: true }];
    // Four spaces make a block of code of it in Markdown.
    const text = JSON.stringify(config, null, 2).replace(/^/gm, "    ");
    const now = Date.now() / 1000;
    const step = resumedAfter === undefined ? 0 : resumedAfter + 1;
    await this.#append([
      ...session.map((content) => eventRecord(now, step, content)),
      eventRecord(now, resumedAfter ?? 0, { tag: "args/text_summary", text }),
    ]);
  }

  /** @throws FileError for a file that cannot be written, after which the next lines begin another file */
  async write(lines: readonly TrackedLine[]): Promise<void> {
    const records = lines.flatMap(({ time, step, values }) => {
      const known = Object.entries(values).flatMap(([name, value]) =>
        value === null ? [] : [[tensorBoardName(name), value] as const],
      );
      return known.length === 0 ? [] : [eventRecord(time / 1000, step, { scalars: Object.fromEntries(known) })];
    });
    await this.#append(records);
  }

  async end(): Promise<void> {}

  async #append(records: readonly Uint8Array[]): Promise<void> {
    const { folder } = this.#options;
    const now = Date.now();
    const begins = this.#path === undefined;
    const path = this.#path ?? platform.joinPath(folder, this.#newName(now));
    this.#path = undefined;
    const version = begins ? [eventRecord(now / 1000, 0, { version: "brain.Event:2" })] : [];
    await platform.append(path, joined([...version, ...records]));
    this.#path = path;
  }

  /** TensorBoard reads the files of a folder in the order of their names. */
  #newName(now: number): string {
    const seconds = String(Math.floor(now / 1000)).padStart(10, "0");
    const milliseconds = String(now % 1000).padStart(3, "0");
    return `events.out.tfevents.${seconds}.${milliseconds}.${platform.hostName()}.${filesBegun++}`;
  }
}
