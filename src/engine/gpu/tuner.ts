/**
 * Picks among kernels that compute the same by timing them on this adapter, and remembers what it found: on disk, by
 * adapter, driver and the kernels' own text. The first candidate is the default and stays unless another one is clearly
 * faster. `program.ts` makes the trials.
 *
 * Candidates may add in another order, so a choice can change the last bits of a result. A choice that is remembered
 * stands, and checkpoints carry the choices of their run; "off" takes the defaults everywhere, "matrices" what runs on
 * subgroup matrices.
 */
import * as z from "zod";
import { AdapterError, FileError } from "../../errors.ts";
import { platform } from "../platform/index.ts";

export type Tuning = "on" | "off" | "matrices";

/** Floating-point operations of a dispatch below which it is not worth a measurement. */
const LEAST_FLOPS = 1e8;
/**
 * Bytes that trials may set aside beside the run's own memory. A gate and up projection of Qwen3-0.6B over 2,048 tokens
 * writes 50 MB, and it is large products that a GPU has to choose well.
 */
export const TRIAL_BYTES = { software: 2 ** 26, hardware: 2 ** 30 } as const;
/** Rounds in which every candidate is timed once; rounds are interleaved, since machines have other work. */
const ROUNDS = 5;
/** Least time of one timing, in milliseconds. */
const LEAST_MS = 4;
/** A candidate replaces the default where it takes at most this share of its time. */
const CLEARLY_FASTER = 0.93;

/** One candidate, ready to run. */
export interface Trial {
  readonly variant: string;
  /** Runs it so many times and waits for the end. */
  run(times: number): Promise<void>;
}

/** Candidates of one kernel for one class of shapes. */
export interface Contest {
  readonly kernel: string;
  readonly tuningClass: string;
  /** Names, the default first. */
  readonly variants: readonly string[];
  /** Texts of the candidates: a measurement of another text does not count. */
  readonly texts: readonly string[];
  readonly flops: number;
  /** Device bytes that the trials take. */
  readonly trialBytes: number;
  /** Makes the trials; `done` gives back what they hold. */
  readonly trials: () => Promise<{ readonly trials: readonly Trial[]; readonly done: () => void }>;
}

const remembered = z.object({ adapter: z.string(), choices: z.record(z.string(), z.string()) });

export class Tuner {
  readonly #adapter: string;
  readonly #tuning: Tuning;
  readonly #mostTrialBytes: number;
  readonly #choices = new Map<string, string>();
  readonly #measured = new Map<string, string>();
  #read: Promise<void> | undefined;
  /** One measurement at a time: two would disturb each other. */
  #queue: Promise<unknown> = Promise.resolve();

  /** @param adapter its name with the driver's version */
  constructor(adapter: string, tuning: Tuning, mostTrialBytes: number = TRIAL_BYTES.software) {
    this.#adapter = adapter;
    this.#tuning = tuning;
    this.#mostTrialBytes = mostTrialBytes;
  }

  /** What has been chosen so far, by kernel and class. */
  get choices(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.#choices].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** Takes over the choices of an earlier run, e.g. from its checkpoint. They have priority over all others. */
  adopt(choices: Readonly<Record<string, string>>): void {
    for (const [key, variant] of Object.entries(choices)) this.#choices.set(key, variant);
  }

  /** The name of the candidate to use. */
  async choose(contest: Contest): Promise<string> {
    const [first = ""] = contest.variants;
    if (this.#tuning === "matrices") return this.#onMatrices(contest);
    const untried = contest.flops < LEAST_FLOPS || contest.trialBytes > this.#mostTrialBytes;
    if (untried || contest.variants.length < 2) return first;
    const key = keyOf(contest);
    const known = this.#choices.get(key);
    if (known !== undefined && contest.variants.includes(known)) return known;
    if (this.#tuning === "off") {
      this.#choices.set(key, first); // a run that goes on where there is tuning keeps to it
      return first;
    }
    const next = this.#queue.then(() => this.#decide(contest));
    this.#queue = next.catch(() => undefined);
    return await next;
  }

  /** The first candidate on matrices, whatever it takes; a choice that was adopted stands. */
  #onMatrices(contest: Contest): string {
    const key = keyOf(contest);
    const known = this.#choices.get(key);
    const [first = ""] = contest.variants;
    const variant =
      known !== undefined && contest.variants.includes(known)
        ? known
        : (contest.variants.find((name) => name.startsWith("matrix")) ?? first);
    this.#choices.set(key, variant);
    return variant;
  }

  async #decide(contest: Contest): Promise<string> {
    const key = keyOf(contest);
    const known = this.#choices.get(key);
    if (known !== undefined && contest.variants.includes(known)) return known;
    this.#read ??= this.#readFile();
    await this.#read;
    let variant = this.#measured.get(key);
    if (variant === undefined || !contest.variants.includes(variant)) {
      const found = await fastest(contest).catch((error: unknown) => {
        if (!(error instanceof AdapterError)) throw error;
        return undefined; // no room for trials: nothing is learnt for other runs, and this one keeps to the default
      });
      if (found !== undefined) {
        this.#measured.set(key, found);
        await this.#writeFile();
      }
      variant = found ?? contest.variants[0] ?? "";
    }
    this.#choices.set(key, variant);
    return variant;
  }

  get #path(): string {
    const hash = platform.sha256();
    hash.update(new TextEncoder().encode(this.#adapter));
    return platform.joinPath(platform.cacheFolder(), "tuning", `${hash.digest().slice(0, 16)}.json`);
  }

  /** Reads the choices on disk; a file that cannot be read counts as empty, and everything is measured again. */
  async #readFile(): Promise<void> {
    try {
      if ((await platform.exists(this.#path)) !== "file") return;
      const { adapter, choices } = remembered.parse(JSON.parse(await platform.readText(this.#path)));
      if (adapter !== this.#adapter) return;
      for (const [key, variant] of Object.entries(choices)) {
        if (!this.#measured.has(key)) this.#measured.set(key, variant);
      }
    } catch (error) {
      if (error instanceof FileError || error instanceof SyntaxError || error instanceof z.ZodError) return;
      throw error;
    }
  }

  /**
   * Adds a choice to those that other processes have written. If the file cannot be written, the choice is not kept.
   */
  async #writeFile(): Promise<void> {
    await this.#readFile();
    const file = { adapter: this.#adapter, choices: Object.fromEntries([...this.#measured].sort()) };
    try {
      await platform.makeFolder(platform.joinPath(platform.cacheFolder(), "tuning"));
      await platform.writeFileAtomic(this.#path, `${JSON.stringify(file, null, 2)}\n`);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
    }
  }
}

/** The key of a choice holds the texts, so that a changed kernel is measured again. */
function keyOf({ kernel, tuningClass, texts }: Contest): string {
  const hash = platform.sha256();
  for (const text of texts) hash.update(new TextEncoder().encode(text));
  return `${kernel} ${tuningClass} ${hash.digest().slice(0, 8)}`;
}

/**
 * Times every candidate. Returns the name of the fastest one if it is clearly faster than the default, else the
 * default's.
 */
async function fastest(contest: Contest): Promise<string> {
  const { trials, done } = await contest.trials();
  try {
    const [defaultTrial] = trials;
    if (defaultTrial === undefined) throw new Error(`no trial for ${contest.kernel}`);
    const timed = async (trial: Trial, times: number): Promise<number> => {
      const start = performance.now();
      await trial.run(times);
      return performance.now() - start;
    };
    // Software adapters compile at the first run.
    for (const trial of trials) await trial.run(1);
    const times = Math.max(1, Math.ceil(LEAST_MS / Math.max(await timed(defaultTrial, 1), 0.01)));
    const best = new Map<Trial, number>();
    for (let round = 0; round < ROUNDS; round++) {
      for (const trial of trials) {
        best.set(trial, Math.min(best.get(trial) ?? Number.POSITIVE_INFINITY, await timed(trial, times)));
      }
    }
    const limit = CLEARLY_FASTER * (best.get(defaultTrial) ?? 0);
    const [winner] = [...best].filter(([, ms]) => ms <= limit).sort(([, a], [, b]) => a - b);
    return (winner?.[0] ?? defaultTrial).variant;
  } finally {
    done();
  }
}
