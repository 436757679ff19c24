/**
 * A model under training, as the worker has it: tells stories, trains on thumbs, gives its files. It knows neither the
 * page nor messages. One with an adapter is a visitor's; the others are trained whole, against themselves as they were.
 */
import {
  type BatchExample,
  type Device,
  decodeContinuation,
  type Example,
  Generator,
  KtoTrainer,
  LoraAdapter,
  loadAdapter,
  loadChatTemplate,
  loadTokenizer,
  Model,
  readFeedback,
  type Tokenizer,
  type TrainingStep,
  tokenizeRows,
} from "../../src/index.ts";
import type { Asked, Told, TrainingChoices } from "./protocol.ts";

/** What is not a visitor's choice. Trainings go on from each other, so their rate stays the same. */
const FIXED = {
  lr_scheduler_type: "constant",
  desirable_weight: "auto",
  undesirable_weight: 1,
  weight_decay: 0,
  seed: 7,
  logging_steps: 1,
} as const;

/** Prompts of a visitor's feedback that are watched. */
const WATCHED = 4;

/** A run while it goes on. */
export interface Training {
  readonly examples: readonly BatchExample[];
  readonly choices: TrainingChoices;
  /** Waited for after each update; the weights do not change meanwhile. */
  readonly onStep: (step: TrainingStep) => Promise<void>;
  readonly onWarning: (sentence: string) => void;
}

export interface TellingListeners {
  /** Called often. */
  readonly onToken?: (told: Told) => void;
}

/** Examples of a visitor's feedback, and prompts among them to watch. */
export interface OwnRows {
  readonly examples: readonly Example[];
  readonly prompts: readonly Asked[];
}

export class Session {
  readonly policy: Model;
  readonly tokenizer: Tokenizer;
  /** The model as it was; one with an adapter is its own reference without it. */
  readonly #reference: Model | undefined;
  #generator: { readonly slots: number; readonly maxLength: number; readonly generator: Generator } | undefined;
  #trainer: KtoTrainer | undefined;
  #stops = false;

  private constructor(policy: Model, reference: Model | undefined, tokenizer: Tokenizer) {
    this.policy = policy;
    this.#reference = reference;
    this.tokenizer = tokenizer;
  }

  /**
   * A model that is trained whole.
   *
   * @param start the folder of the weights to start from, where these are others than the reference's
   */
  static async whole(device: Device, folder: string, start = folder): Promise<Session> {
    const policy = await Model.load(device, start, { storage: "f32" });
    const reference =
      start === folder
        ? Model.copyOf(policy, "reference weights")
        : await Model.load(device, folder, { storage: "f32", category: "reference weights" });
    return new Session(policy, reference, await loadTokenizer(folder));
  }

  /** A model with an adapter: that of a folder, or a new one of this rank. */
  static async withAdapter(
    device: Device,
    folder: string,
    adapterOf: { readonly folder: string } | { readonly rank: number },
    onWarning: (sentence: string) => void,
  ): Promise<Session> {
    const model = await Model.load(device, folder, { onWarning });
    let adapter: LoraAdapter;
    if ("folder" in adapterOf) adapter = await loadAdapter(model, adapterOf.folder, { onWarning });
    else {
      const { rank } = adapterOf;
      adapter = LoraAdapter.create(device, model.config, { rank, alpha: 2 * rank, dropout: 0, rslora: false });
      adapter.initialize(FIXED.seed);
      await adapter.readBase(model);
    }
    return new Session(model.withAdapter(adapter), undefined, await loadTokenizer(folder));
  }

  /** A visitor's feedback in this model's tokens. */
  async rows(file: string, onWarning: (sentence: string) => void): Promise<OwnRows> {
    const { vocabSize, contextLength } = this.policy.config;
    const { tokenizer } = this;
    const chatTemplate = await loadChatTemplate(this.policy.folder);
    const rows = await readFeedback(file, { onWarning });
    const { examples, report } = tokenizeRows(rows, { tokenizer, vocabSize, contextLength, chatTemplate });
    for (const sentence of report.warnings) onWarning(sentence);
    const prompts = new Map<string, Asked>();
    for (const { promptIds } of examples) {
      if (prompts.size === WATCHED) break;
      const ids = [...promptIds];
      prompts.set(ids.join(), { id: prompts.size, prompt: tokenizer.decode(ids, { skipSpecialTokens: true }), ids });
    }
    return { examples, prompts: [...prompts.values()] };
  }

  /**
   * Continues prompts. What is told at a place hangs on the weights, the prompt, the seed and the place alone.
   *
   * @param tokens of a continuation, at most
   */
  async tell(
    asked: readonly Asked[],
    seed: number,
    tokens: number,
    { onToken }: TellingListeners = {},
  ): Promise<Told[]> {
    if (asked.length === 0) return [];
    const prompts = asked.map(({ prompt, ids }) => ids ?? this.tokenizer.encode(prompt));
    const toldOf = (at: number, completionIds: readonly number[]): Told => {
      const [one, promptIds = []] = [asked[at], prompts[at]];
      const text = decodeContinuation(this.tokenizer, promptIds, completionIds);
      return { id: one?.id ?? 0, prompt: one?.prompt ?? "", text, promptIds, completionIds };
    };
    const generator = this.#generatorFor(asked.length, Math.max(...prompts.map(({ length }) => length)) + tokens);
    const sampled = await generator.generate(prompts, {
      maxNewTokens: tokens,
      seed,
      ...{ temperature: 1, topK: 0, topP: 1 },
      ...(onToken && { onToken: (at: number, ids: readonly number[]) => void onToken(toldOf(at, ids)) }),
    });
    return sampled.map(({ ids }, at) => toldOf(at, ids));
  }

  #generatorFor(slots: number, wanted: number): Generator {
    const maxLength = Math.min(wanted, this.policy.config.contextLength);
    const known = this.#generator;
    if (known && known.slots >= slots && known.maxLength >= maxLength) return known.generator;
    known?.generator.free();
    const generator = new Generator(this.policy, { maxBatch: slots, maxLength });
    this.#generator = { slots, maxLength, generator };
    return generator;
  }

  /** Trains, and writes what was trained into a folder. @returns the updates done, fewer than asked for after `stop` */
  async train({ examples, choices, onStep, onWarning }: Training, folder: string): Promise<number> {
    this.#stops = false;
    const trainer = await KtoTrainer.create({
      policy: this.policy,
      ...(this.#reference && { reference: this.#reference }),
      examples,
      options: { ...FIXED, ...choices, ...(this.#reference ? {} : { reference: "base" }) },
      onWarning,
    });
    this.#trainer = trainer;
    if (this.#stops) trainer.stop(); // while it was made
    try {
      for await (const step of trainer) await onStep(step);
      await trainer.save(folder);
      return trainer.stepsDone;
    } finally {
      this.#trainer = undefined;
      trainer.free();
    }
  }

  /** Gives the device memory back. */
  free(): void {
    this.#generator?.generator.free();
    this.#reference?.free();
    this.policy.adapter?.free();
    this.policy.free();
  }

  /** Ends the training after the update in progress. */
  stop(): void {
    this.#stops = true;
    this.#trainer?.stop();
  }
}
