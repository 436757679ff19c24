/**
 * The best weights of a run, kept beside it: what is trained, in f32, as one file that is replaced as a whole. Not a
 * checkpoint: there are no moments and no place in the data in it.
 */
import { openSafetensors, writeSafetensors } from "../../engine/files/safetensors.ts";
import type { Model } from "../../engine/model/model.ts";
import { arenaTensors, fillArena } from "../../engine/model/weights/arena-files.ts";
import { tensorTable } from "../../engine/model/weights/weight-files.ts";
import { platform } from "../../engine/platform/index.ts";
import { FileError } from "../../errors.ts";

/** In the folder of the run. */
export const BEST_FOLDER = "best";

export class BestModel {
  readonly #model: Model;
  readonly #folder: string;

  /** @param folder is made when the first weights are kept */
  constructor(model: Model, folder: string) {
    this.#model = model;
    this.#folder = folder;
  }

  get path(): string {
    return platform.joinPath(this.#folder, "trained.safetensors");
  }

  /**
   * Keeps the trained weights as they are now, in place of those before.
   *
   * @param about the step, the metric and its value, for people
   * @throws FileError, after which the file before is there still
   */
  async keep(about: { readonly step: number; readonly metric: string; readonly value: number }): Promise<void> {
    await platform.makeFolder(this.#folder);
    const tensors = arenaTensors(this.#model.trained, (part) => part);
    const { step, metric, value } = about;
    await writeSafetensors(this.path, tensors, { format: "pt", step: String(step), [metric]: String(value) });
  }

  /**
   * Puts the kept weights back into the model.
   *
   * @param step that they must be of: a run that was resumed from an earlier checkpoint may find those of a later one
   * @throws FileError if there are none, or of another step; ModelFormatError if the file is not the one that was
   * written
   */
  async restore(step: number): Promise<void> {
    const file = await openSafetensors(this.path);
    try {
      if (file.metadata.step !== String(step)) {
        throw new FileError(`${file.path} holds the weights of step ${file.metadata.step}, not of step ${step}.`);
      }
      await fillArena(this.#model.trained, tensorTable([file]), file.path, (part) => part);
    } finally {
      await file.close();
    }
  }
}
