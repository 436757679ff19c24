/** What the run leaves for `kto dashboard`, written as `kto train` writes it: metrics, examples, texts of rows, settings. */

import { writeFacts } from "../../src/cli/session/results.ts";
import { RowTexts } from "../../src/cli/session/rows-file.ts";
import { ExamplesFile } from "../../src/cli/terminal/examples-file.ts";
import { MetricsFile } from "../../src/cli/terminal/metrics-file.ts";
import { platform } from "../../src/engine/platform/index.ts";
import type { Example, KtoTrainer, Model, TrainingStep } from "../../src/index.ts";

type Trainer = Awaited<ReturnType<typeof KtoTrainer.create>>;

export class RunFiles {
  readonly #folder: string;
  readonly #policy: Model;
  readonly #warn: (sentence: string) => void;
  readonly #metrics: MetricsFile;
  readonly #examples: ExamplesFile;
  readonly #rows: RowTexts;

  private constructor(folder: string, policy: Model, examples: readonly Example[], warn: (sentence: string) => void) {
    this.#folder = folder;
    this.#policy = policy;
    this.#warn = warn;
    this.#metrics = new MetricsFile(folder, warn);
    this.#examples = new ExamplesFile(folder, warn);
    this.#rows = new RowTexts(folder, policy, examples, warn);
  }

  /** Makes the folder. @param warn is told what cannot be written, without which the run goes on */
  static async create(
    folder: string,
    policy: Model,
    examples: readonly Example[],
    warn: (sentence: string) => void,
  ): Promise<RunFiles> {
    await platform.makeFolder(folder);
    return new RunFiles(folder, policy, examples, warn);
  }

  /** Begins the files afresh: an earlier run may have left some. */
  async start(trainer: Trainer, adapter: string, options: Readonly<Record<string, unknown>>): Promise<void> {
    const { totalSteps: updates, stepsPerEpoch: updates_per_epoch } = trainer;
    const parameters = this.#policy.layout.parameterCount;
    const facts = { parameters, trained: parameters, updates, updates_per_epoch, adapter, options };
    const named = { method: "kto", model: "stories260K", data: "thumbs on its own stories" } as const;
    await writeFacts(this.#folder, { ...named, ...facts }, this.#warn);
    await this.#metrics.start(trainer.log);
    await this.#rows.start(0, await this.#examples.start(0));
  }

  /** What an update did with its examples. */
  async add({ examples }: TrainingStep): Promise<void> {
    if (examples === undefined) return;
    await this.#examples.write(examples);
    await this.#rows.write(examples);
  }

  async addMetrics({ log }: Trainer): Promise<void> {
    await this.#metrics.update(log);
  }

  async finish({ log }: Trainer): Promise<void> {
    await this.#metrics.finish(log);
  }
}
