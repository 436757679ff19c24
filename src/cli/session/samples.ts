/**
 * samples.jsonl: the model's completions of the same prompts, before training and at each evaluation. One object a
 * line: {"step", "index", "prompt", "completion"}. A judge may compare them.
 */
import { textFolder } from "../../engine/model/config/folder.ts";
import type { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { loadTokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, counted, DatasetError, FileError } from "../../errors.ts";
import type { Example } from "../../kto/data/types.ts";
import { Continuations } from "../../kto/evaluation/continuations.ts";
import type { AnswerPair } from "../../kto/judge/compare.ts";
import { drawsSamples } from "../../kto/options/evaluation.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { SAMPLES_FILE } from "../../kto/run/run-files.ts";
import { checkSamePrompts } from "../../kto/run/same-run.ts";
import type { Output } from "../terminal/output.ts";
import { linesUpTo } from "../terminal/step-lines.ts";
import { working } from "../terminal/work.ts";
import { type Prompt, promptEncoder, promptText, readPrompts, withoutSource } from "./prompts.ts";
import { resolveSampling } from "./sampling.ts";

export class SampleLog {
  readonly #continuations: Continuations;
  readonly #prompts: readonly Prompt[];
  /** Where rank 0, which alone reads and writes the file, has it; undefined on other ranks. */
  readonly #path: string | undefined;
  readonly #output: Output;
  #last: { readonly step: number; readonly completions: readonly string[] } | undefined;
  /** The completions before training. */
  #first: readonly string[] | undefined;

  /**
   * undefined where no samples are asked for. Allocates the generator's device memory.
   *
   * @throws FileError, DatasetError for prompts that cannot be read; AdapterError
   */
  static async create(
    policy: Model,
    config: RunConfig,
    evalExamples: readonly Example[] | undefined,
    ranks: Communicator,
    output: Output,
  ): Promise<SampleLog | undefined> {
    if (!drawsSamples(config)) return undefined;
    const { eval_prompts_file: file, eval_samples: most } = config;
    const texts = await textFolder(policy);
    const tokenizer = await loadTokenizer(texts);
    let prompts: { readonly prompt: Prompt; readonly ids: readonly number[] }[];
    if (file === undefined) {
      const different = new Map((evalExamples ?? []).map(({ promptIds }) => [promptIds.join(), [...promptIds]]));
      prompts = [...different.values()].map((ids) => ({
        prompt: tokenizer.decode(ids, { skipSpecialTokens: true }),
        ids,
      }));
    } else {
      const written = await readPrompts({ prompt: [], prompts_file: file });
      const encode = await promptEncoder(written, tokenizer, texts, config);
      prompts = written.map((prompt) => ({ prompt, ids: encode(prompt) }));
    }
    if (most !== undefined && prompts.length < most) {
      output.warning(`eval_samples is ${most}, but the different prompts are only ${prompts.length}.`);
    }
    prompts = prompts.slice(0, most);
    const { contextLength } = policy.config;
    const long = prompts.findIndex(({ ids }) => ids.length >= contextLength);
    if (long >= 0) {
      throw new DatasetError(
        `Prompt ${long + 1} of the samples has ${prompts[long]?.ids.length} tokens, which leaves no room to continue it within the model's context of ${contextLength}; shorten it.`,
      );
    }
    const ids = prompts.map((prompt) => prompt.ids);
    await checkSamePrompts(ranks, ids);
    const continuations = new Continuations(policy, tokenizer, ids, {
      maxNewTokens: config.eval_max_new_tokens,
      seed: config.seed,
      sampling: await resolveSampling({ greedy: false, stop_strings: [], seed: config.seed }, policy.folder, output),
      ranks,
    });
    const path = platform.joinPath(config.output_dir, SAMPLES_FILE);
    const asked = prompts.map(({ prompt }) => prompt);
    return new SampleLog(continuations, asked, ranks.rank === 0 ? path : undefined, output);
  }

  private constructor(
    continuations: Continuations,
    prompts: readonly Prompt[],
    path: string | undefined,
    output: Output,
  ) {
    this.#continuations = continuations;
    this.#prompts = prompts;
    this.#path = path;
    this.#output = output;
  }

  /**
   * Cuts an earlier run's file back to the step from which the run is resumed; at step 0 the file is emptied.
   *
   * @param needed why the run cannot do without what was said before training, if it cannot
   * @throws ConfigError, before anything is written, where a run that is resumed has lost that
   */
  async start(step: number, needed: string | undefined): Promise<void> {
    if (this.#path === undefined) return;
    const kept = await linesUpTo(this.#path, step);
    const samples = kept.map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
    const first = samples.filter((sample) => sample.step === 0);
    const asked =
      JSON.stringify(first.map(({ prompt }) => prompt)) === JSON.stringify(this.#prompts.map(withoutSource));
    if (asked) this.#first = first.map(({ completion }) => String(completion));
    else if (step > 0 && needed !== undefined) throw new ConfigError(`${needed}, but ${this.#lost()}`);
    await platform.writeFileAtomic(this.#path, kept.join(""));
  }

  #lost(): string {
    return `${this.#path} does not hold what the model said to these prompts before training.`;
  }

  /** The model's completions after this many updates, generated once for each step. */
  async #completions(step: number): Promise<readonly string[]> {
    if (this.#last?.step !== step) {
      const what = `continuing ${counted(this.#prompts.length, "prompt")}`;
      const completions = await working(this.#output, what, (progress) => this.#continuations.run(progress), "tokens");
      this.#last = { step, completions };
    }
    if (step === 0) this.#first = this.#last.completions;
    return this.#last.completions;
  }

  /**
   * The model's completions after this many updates, each beside the one before training. Every rank must call it; rank 0
   * gets them.
   *
   * @throws FileError where a run that is resumed has lost that
   */
  async pairs(step: number): Promise<AnswerPair[]> {
    const completions = await this.#completions(step);
    if (this.#path === undefined) return [];
    const before = this.#first;
    if (before === undefined) throw new FileError(this.#lost());
    return this.#prompts.map((prompt, i) => ({
      prompt: promptText(prompt),
      model: completions[i] ?? "",
      opponent: before[i] ?? "",
    }));
  }

  /** Appends the model's completions after this many updates. Every rank must call it. */
  async write(step: number): Promise<void> {
    const prompts = this.#prompts.map(withoutSource);
    const completions = await this.#completions(step);
    if (this.#path === undefined) return;
    const samples = completions.map((completion, index) => ({ step, index, prompt: prompts[index], completion }));
    await platform.append(this.#path, samples.map((sample) => `${JSON.stringify(sample)}\n`).join(""));
  }
}
