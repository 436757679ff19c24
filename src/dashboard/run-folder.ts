/** One run as its folder tells of it: metrics and examples, read as far as they are written. Nothing is written. */
import * as z from "zod";
import { platform } from "../engine/platform/index.ts";
import type { FileSource } from "../engine/platform/platform.ts";
import { errorMessage, FileError } from "../errors.ts";
import { type LoggedLine, runVerdict } from "../kto/report/verdict.ts";
import { EXAMPLES_FILE, type ExampleLine, exampleLineSchema } from "../kto/run/example-line.ts";
import { LOCK_FILE } from "../kto/run/lock.ts";
import { METRICS_FILE, SAMPLES_FILE } from "../kto/run/run-files.ts";
import { type FoundLine, GrowingLines } from "./growing-lines.ts";
import type {
  EventsAnswer,
  FactsAnswer,
  MetricsAnswer,
  RewardsAnswer,
  RowsAnswer,
  RunSummary,
  SamplesAnswer,
} from "./protocol.ts";
import { RewardHistory } from "./reward-history.ts";
import { RunNotes } from "./run-notes.ts";
import { SeriesTable, thinned } from "./series.ts";

/** Prompts whose samples are sent. */
const MOST_SAMPLES = 50;
const sampleSchema = z.object({ index: z.number(), prompt: z.unknown(), completion: z.string() });
const message = z.object({ role: z.string(), content: z.string() });

/** Points of a curve that are sent; a screen has fewer columns. */
const MOST_POINTS = 2000;
/** How many last values of a metric count where it is said whether a run learnt; the first value counts too. */
const LAST_JUDGED = 100;
const JUDGED = /^(eval_)?(loss|rewards\/margins(\/(low|high))?)$|^eval_win_rate(\/(low|high))?$/;

export class RunFolder {
  readonly id: string;
  readonly folder: string;
  readonly #files: FileSource;
  readonly #metrics: GrowingLines;
  readonly #examples: GrowingLines;
  readonly #samples: GrowingLines;
  readonly #table = new SeriesTable();
  /** Where the lines of examples.jsonl lie, by step; the last of a step counts. */
  readonly #places = new Map<number, Pick<FoundLine, "offset" | "length">>();
  /** Where the lines of samples.jsonl lie, by step; it has a line for each prompt. */
  readonly #said = new Map<number, Pick<FoundLine, "offset" | "length">[]>();
  readonly #rewards = new RewardHistory();
  readonly #notes: RunNotes;
  #version = 0;
  /** A page that outlives its server must not take another file for the one that it knows. */
  #generation = Date.now();
  #running = false;
  #fault: string | undefined;
  #samplesCount = 0;
  #told: { readonly version: number; readonly summary: RunSummary } | undefined;
  /** One reading at a time. */
  #reading: Promise<boolean> | undefined;

  constructor(id: string, folder: string, files: FileSource) {
    this.id = id;
    this.folder = folder;
    this.#files = files;
    this.#metrics = new GrowingLines(platform.joinPath(folder, METRICS_FILE), files);
    this.#examples = new GrowingLines(platform.joinPath(folder, EXAMPLES_FILE), files);
    this.#samples = new GrowingLines(platform.joinPath(folder, SAMPLES_FILE), files);
    this.#notes = new RunNotes(folder, files);
  }

  /** Another number where anything that is told of the run has changed. */
  get version(): number {
    return this.#version;
  }

  /** Reads what is new; what cannot be read is told by `summary`. @returns whether there was anything */
  async refresh(): Promise<boolean> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return await this.#reading;
  }

  async #read(): Promise<boolean> {
    const faults: string[] = [];
    // A file that cannot be read hides no other one.
    const attempt = async (body: () => Promise<boolean>): Promise<boolean> => {
      try {
        return await body();
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        faults.push(errorMessage(error));
        return false;
      }
    };
    const grown = await attempt(() =>
      this.#metrics.read(
        ({ text }) => this.#table.add(text),
        () => {
          this.#table.clear();
          this.#generation++;
        },
      ),
    );
    const more = await attempt(() =>
      this.#examples.read(
        ({ text, offset, length }) => {
          const step = stepOf(text);
          if (step === undefined) return;
          this.#places.set(step, { offset, length });
          this.#rewards.add(text);
        },
        () => {
          this.#places.clear();
          this.#rewards.clear();
        },
      ),
    );
    const said = await attempt(() =>
      this.#samples.read(
        ({ text, offset, length }) => {
          const step = stepOf(text);
          if (step === undefined) return;
          this.#samplesCount++;
          const places = this.#said.get(step) ?? [];
          if (places.length < MOST_SAMPLES) this.#said.set(step, [...places, { offset, length }]);
        },
        () => {
          this.#said.clear();
          this.#samplesCount = 0;
        },
      ),
    );
    const noted = await attempt(() => this.#notes.read());
    let running = false;
    await attempt(async () => {
      running = (await this.#files.exists(platform.joinPath(this.folder, LOCK_FILE))) === "file";
      return running;
    });
    const fault = faults[0];
    const changed = grown || more || said || noted || running !== this.#running || fault !== this.#fault;
    this.#running = running;
    this.#fault = fault;
    if (changed) this.#version++;
    return changed;
  }

  /** Made once for each state of the files: it is asked for at every look. */
  get summary(): RunSummary {
    if (this.#told?.version !== this.#version) this.#told = { version: this.#version, summary: this.#summary };
    return this.#told.summary;
  }

  get #summary(): RunSummary {
    const steps = this.#table.names.map((name) => this.#table.series(name).steps.at(-1) ?? 0);
    const { outcome, text } = this.#verdict ?? {};
    return {
      id: this.id,
      name: platform.baseName(platform.absolutePath(this.folder)),
      running: this.#running,
      lines: this.#table.lines,
      generation: this.#generation,
      step: Math.max(0, ...steps),
      events: this.#notes.count,
      warnings: this.#notes.warningCount,
      examples: this.#places.size,
      samples: this.#samplesCount,
      ...(outcome === undefined || text === undefined ? {} : { verdict: { outcome, text } }),
      ...(this.#fault === undefined ? {} : { fault: this.#fault }),
    };
  }

  get #verdict() {
    const isSft = !this.#table.names.includes("rewards/margins") && this.#table.names.includes("mean_token_accuracy");
    const lines = new Map<number, Record<string, number>>();
    for (const name of this.#table.names.filter((one) => JUDGED.test(one))) {
      const { steps, values } = this.#table.series(name);
      // Asked for often, and of runs of any length: what the verdict goes by is the first value and the last ones.
      const from = Math.max(1, steps.length - LAST_JUDGED);
      for (const at of [0, ...Array.from({ length: Math.max(0, steps.length - from) }, (_, i) => from + i)]) {
        const step = steps[at] ?? 0;
        const line = lines.get(step) ?? {};
        line[name] = values[at] ?? Number.NaN;
        lines.set(step, line);
      }
    }
    const log: LoggedLine[] = [...lines].sort(([a], [b]) => a - b).map(([, line]) => line);
    return runVerdict(log, isSft ? "sft" : "kto");
  }

  /** @param known what the asking page has already: that many lines of that generation */
  metrics(known?: Pick<MetricsAnswer, "lines" | "generation">): MetricsAnswer {
    const { lines } = this.#table;
    const news = known?.generation === this.#generation ? this.#table.since(known.lines) : undefined;
    const all =
      news ?? this.#table.names.map((name) => [name, thinned(this.#table.series(name), MOST_POINTS)] as const);
    const series = [...all].map(([name, { steps, values }]) => {
      // As many digits as the device's numbers have: half the text.
      return [name, { steps, values: values.map((value) => Number(value.toPrecision(7))) }] as const;
    });
    const from = news === undefined ? 0 : (known?.lines ?? 0);
    return { lines, generation: this.#generation, from, series: Object.fromEntries(series) };
  }

  /** The updates whose examples are logged. */
  get exampleSteps(): readonly number[] {
    return [...this.#places.keys()].sort((a, b) => a - b);
  }

  /** What the model said at the first and at the last update that has samples; undefined without any. */
  async samples(): Promise<SamplesAnswer | undefined> {
    const steps = [...this.#said.keys()].sort((a, b) => a - b);
    const [first, last] = [steps[0], steps.at(-1)];
    if (first === undefined || last === undefined) return undefined;
    const at = async (step: number) => {
      const lines = (this.#said.get(step) ?? []).slice(0, MOST_SAMPLES);
      return await Promise.all(lines.map(async (place) => sampleOf(await this.#samples.textAt(place))));
    };
    const [before, now] = [await at(first), await at(last)];
    const samples = now.flatMap((sample) => {
      const other = before.find((one) => one?.index === sample?.index);
      if (sample === undefined || other === undefined) return [];
      const { index, prompt, completion } = sample;
      return [{ index, prompt: promptText(prompt), first: other.completion, last: completion }];
    });
    return { first, last, samples };
  }

  /** How the rewards of each class are spread over the run; undefined before any is logged. */
  get rewards(): RewardsAnswer | undefined {
    return this.#rewards.spread;
  }

  /** The rows that stand out, with the texts that the run wrote of them. */
  async rows(): Promise<RowsAnswer> {
    const { rows, groups } = this.#rewards.standingOut;
    const withTexts = groups.map(async (group) => ({
      ...group,
      rows: await Promise.all(group.rows.map(async (row) => ({ ...row, text: await this.#notes.rowText(row.index) }))),
    }));
    return { rows, groups: await Promise.all(withTexts) };
  }

  get events(): EventsAnswer {
    return this.#notes.events;
  }

  async facts(): Promise<FactsAnswer> {
    return { facts: await this.#notes.facts() };
  }

  /** What an update did with its examples; undefined where that is not logged, or its line is damaged. */
  async examples(step: number): Promise<ExampleLine | undefined> {
    const place = this.#places.get(step);
    if (place === undefined) return undefined;
    const text = await this.#examples.textAt(place);
    try {
      return exampleLineSchema.safeParse(JSON.parse(text)).data;
    } catch {
      return undefined;
    }
  }
}

/** The step of a line that a run wrote, which begins with it. */
function stepOf(line: string): number | undefined {
  const step = /^\{"step":(\d+),/.exec(line)?.[1];
  return step === undefined ? undefined : Number(step);
}

function sampleOf(text: string): z.output<typeof sampleSchema> | undefined {
  try {
    return sampleSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

function promptText(prompt: unknown): string {
  if (typeof prompt === "string") return prompt;
  const messages = z.object({ messages: z.array(message) }).safeParse(prompt).data?.messages ?? [];
  return messages.map(({ role, content }) => `${role}: ${content}`).join("\n");
}

/** Runs that are shown of all folders together. */
export const MOST_RUNS = 500;

/** The folders of runs among these and in them, at most MOST_RUNS: a run is a folder with a metrics.jsonl. */
export async function runFolders(folders: readonly string[], files: FileSource): Promise<string[]> {
  const found = new Set<string>();
  for (const folder of folders) {
    if ((await files.exists(folder)) !== "folder") continue;
    const inside = (await files.list(folder)).map((name) => platform.joinPath(folder, name));
    for (const candidate of [folder, ...inside]) {
      if (found.size < MOST_RUNS && (await isRun(candidate, files))) found.add(candidate);
    }
  }
  return [...found];
}

/** Beside runs may lie what this process may not look into. */
async function isRun(folder: string, files: FileSource): Promise<boolean> {
  try {
    return (await files.exists(platform.joinPath(folder, METRICS_FILE))) === "file";
  } catch (error) {
    if (error instanceof FileError) return false;
    throw error;
  }
}
