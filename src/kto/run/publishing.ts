/**
 * Uploads a run's results to the hub: the model at its end and, if asked, each checkpoint while the training goes on.
 * What cannot be uploaded stays on the disk, and is told in one sentence. Requests are engine/hub/upload.ts.
 */
import type { HubPatience } from "../../engine/hub/settings.ts";
import { type PushedFile, type PushTarget, pushFiles, pushTarget } from "../../engine/hub/upload.ts";
import { MODEL_FILES, TEMPLATES_FOLDER, TOKENIZER_FILES, templatesIn } from "../../engine/model/config/folder.ts";
import { ADAPTER_CONFIG } from "../../engine/model/peft-config.ts";
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError, KtoError } from "../../errors.ts";
import { CARD_FILE, CURVES_FILE } from "../report/model-card.ts";
import { type SavedCheckpoint, type TrainerCallbacks, warn } from "./callbacks.ts";
import { TRAINER_STATE_FILE } from "./state.ts";

/** The options have the names of transformers' TrainingArguments. */
export interface PublishingOptions extends Pick<TrainerCallbacks, "onWarning"> {
  /** "user/name" or a name of the token's user; default: the name of `outputFolder`. */
  readonly hub_model_id?: string | undefined;
  readonly hub_private_repo?: boolean | undefined;
  /** Default: HF_TOKEN, or the token of huggingface_hub's login. */
  readonly hub_token?: string | undefined;
  /**
   * "end": the result; "every_save" (default): the model of each checkpoint too, in its place; "checkpoint": the latest
   * checkpoint too, as last-checkpoint, "all_checkpoints": every checkpoint, as checkpoint-N.
   */
  readonly hub_strategy?: "end" | "every_save" | "checkpoint" | "all_checkpoints";
  /** The folder of the run. */
  readonly outputFolder: string;
  /** How often requests are tried. */
  readonly patience?: Partial<HubPatience>;
}

/** Where the latest checkpoint lies in the repository, as with transformers. */
const LAST_CHECKPOINT = "last-checkpoint";

/** What is uploaded of a result: the model and what it was made by, nothing of the rows. */
const RESULT_FILES: readonly string[] = [
  ...MODEL_FILES,
  ...TOKENIZER_FILES,
  ADAPTER_CONFIG,
  CARD_FILE,
  CURVES_FILE,
  TRAINER_STATE_FILE,
];
const WEIGHTS = /^(model|adapter_model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/;

export class Publishing {
  readonly #target: PushTarget;
  readonly #options: PublishingOptions;
  /** The upload of a checkpoint that goes on. */
  #current: Promise<void> | undefined;

  private constructor(target: PushTarget, options: PublishingOptions) {
    this.#target = target;
    this.#options = options;
  }

  /**
   * Checks that uploads can be tried; sends nothing.
   *
   * @throws ConfigError, ResourceError: see `pushTarget`
   */
  static async prepare(options: PublishingOptions): Promise<Publishing> {
    const { outputFolder, hub_model_id, hub_private_repo: isPrivate, hub_token: token, patience } = options;
    const id = hub_model_id ?? platform.baseName(platform.absolutePath(outputFolder));
    const onWarning = (sentence: string) => warn(options, sentence);
    return new Publishing(await pushTarget(id, { isPrivate, token, patience, onWarning }), options);
  }

  /**
   * Begins to upload a checkpoint where that is asked for. The training does not wait; while an upload goes on, further
   * checkpoints are left to the next one.
   */
  checkpoint({ folder, step }: SavedCheckpoint): void {
    const { hub_strategy: strategy = "every_save" } = this.#options;
    if (strategy === "end" || this.#current !== undefined) return;
    const upload = async () => {
      try {
        const files = await resultFiles(folder);
        const into = { every_save: undefined, checkpoint: LAST_CHECKPOINT, all_checkpoints: platform.baseName(folder) };
        const place = into[strategy];
        const whole = place === undefined ? [] : await platform.list(folder);
        files.push(...whole.map((name) => ({ path: platform.joinPath(folder, name), name: `${place}/${name}` })));
        await pushFiles(this.#target, files, `Training in progress, step ${step}`);
      } catch (error) {
        if (!(error instanceof KtoError)) throw error;
        warn(this.#options, `${errorMessage(error)} The checkpoint of step ${step} is in ${folder}.`);
      }
    };
    this.#current = upload().finally(() => {
      this.#current = undefined;
    });
  }

  /**
   * Uploads the result, once an upload that goes on has ended.
   *
   * @returns the repository's address
   * @throws FileError that says where the result is
   */
  async end(): Promise<string> {
    await this.settled();
    const { outputFolder } = this.#options;
    try {
      return await pushFiles(this.#target, await resultFiles(outputFolder), "End of training");
    } catch (error) {
      if (!(error instanceof KtoError)) throw error;
      throw new FileError(
        `${errorMessage(error)} Nothing is lost: the result is in ${outputFolder}; upload it with "hf upload ${this.#target.id} ${outputFolder}".`,
        { cause: error },
      );
    }
  }

  /** Waits for the upload that goes on. */
  async settled(): Promise<void> {
    await this.#current;
  }
}

async function resultFiles(folder: string): Promise<PushedFile[]> {
  const names = (await platform.list(folder)).filter((name) => RESULT_FILES.includes(name) || WEIGHTS.test(name));
  const templates = (await templatesIn(folder)).map((name) => `${TEMPLATES_FOLDER}/${name}`);
  return [...names, ...templates].map((name) => ({ path: platform.joinPath(folder, name), name }));
}
