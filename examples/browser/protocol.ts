/** What the page and its worker say to each other: types alone, which both import. */
import type { GivenFile, Metrics } from "../../src/browser.ts";
import type { ExampleLine } from "../../src/dashboard/protocol.ts";

/** A continuation of a prompt by the model as it was then. */
export interface Told {
  /** That of the prompt that was asked. */
  readonly id: number;
  readonly prompt: string;
  readonly text: string;
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
}

/** A prompt to continue. */
export interface Asked {
  readonly id: number;
  readonly prompt: string;
  /** Its tokens, where they are known. */
  readonly ids?: readonly number[];
}

/** Prompts that are told together. The same seed draws by the same random numbers, whatever the weights are. */
export interface Telling {
  readonly asked: readonly Asked[];
  readonly seed: number;
  /** Of each continuation, at most. */
  readonly tokens: number;
}

/** A row of feedback on what the model said, in the tokens that it said. */
export interface Thumb {
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
  readonly label: boolean;
}

/** What a visitor chooses for a training, under the names of the options of `KtoTrainer`. */
export interface TrainingChoices {
  readonly max_steps: number;
  readonly per_device_train_batch_size: number;
  readonly learning_rate: number;
  readonly beta: number;
}

/** What the address of the page asks for: `?tuning=off&features=core`, as KTO_TUNING and KTO_FEATURES ask in Node. */
export interface DeviceChoices {
  readonly tuning?: "on" | "off";
  readonly features?: "all" | "core";
}

/** What a worker is asked for, one after another; only `stop` goes past what is under way. */
export type Request =
  /** The model that the page has with it, trained whole; with weights in place of its own. */
  | { readonly kind: "open"; readonly device: DeviceChoices; readonly weights?: Blob | undefined }
  /** A visitor's model with a LoRA adapter, new or given, and rows to train on. */
  | {
      readonly kind: "openOwn";
      readonly device: DeviceChoices;
      /** Of its folder, of which a page knows no more. */
      readonly name: string;
      readonly model: readonly GivenFile[];
      readonly feedback: GivenFile;
      readonly rank: number;
      readonly adapter?: readonly GivenFile[] | undefined;
    }
  | { readonly kind: "tell"; readonly telling: Telling }
  | {
      readonly kind: "train";
      /** Of the model that the page has with it; a visitor's model is trained on its rows. */
      readonly thumbs: readonly Thumb[];
      readonly choices: TrainingChoices;
      /** What is told anew while the model changes. */
      readonly watched: Telling;
    }
  | { readonly kind: "stop" };

/** A model that is ready. */
export interface Opened {
  readonly parameters: number;
  /** Parameters of the adapter; undefined where the whole model is trained. */
  readonly adapterParameters: number | undefined;
  readonly adapter: string;
  readonly isSoftware: boolean;
  /** Of a visitor's feedback: thumbs, and prompts to watch. */
  readonly feedback?: { readonly up: number; readonly down: number; readonly prompts: readonly Asked[] } | undefined;
}

export type Reply =
  | { readonly kind: "opened"; readonly opened: Opened }
  /** As far as they are told. `step` is given while a model is trained. */
  | { readonly kind: "told"; readonly told: readonly Told[]; readonly isWhole: boolean; readonly step?: number }
  /** Updates of one training are counted from 1. */
  | {
      readonly kind: "step";
      readonly step: number;
      readonly totalSteps: number;
      readonly metrics: Metrics;
      readonly examples: ExampleLine | undefined;
    }
  /** The end of a training, with the files of what was trained. */
  | { readonly kind: "trained"; readonly steps: number; readonly files: readonly GivenFile[] }
  | { readonly kind: "working"; readonly work: string; readonly done?: number; readonly total?: number }
  | { readonly kind: "warning"; readonly sentence: string }
  /** The answer to a request is complete. */
  | { readonly kind: "done" }
  /** It failed, in a sentence; where the device was lost nothing more can be asked of this worker. */
  | { readonly kind: "failed"; readonly sentence: string; readonly isLost: boolean; readonly isBug: boolean };
