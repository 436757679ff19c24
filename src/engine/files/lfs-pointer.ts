/**
 * Git LFS pointers: the short text files that lie in place of large ones where a repository was cloned without git-lfs.
 * Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
 */
import { type DatasetError, ModelFormatError } from "../../errors.ts";

/** What every pointer begins with. */
const BEGINNING = "version https://git-lfs.github.com/spec/";
/** Characters after which nothing of a pointer comes. */
export const LFS_POINTER_LENGTH = 1024;

/**
 * @param start the file's first LFS_POINTER_LENGTH characters, or all if there are fewer
 * @param Refusal the class of the error: DatasetError for feedback, ModelFormatError for what belongs to a model
 * @throws Refusal if they are a Git LFS pointer
 */
export function refuseLfsPointer(
  path: string,
  start: string,
  Refusal: typeof ModelFormatError | typeof DatasetError = ModelFormatError,
): void {
  if (!start.startsWith(BEGINNING)) return;
  const size = /^size (\d+)$/m.exec(start)?.[1];
  throw new Refusal(
    `${path} is a Git LFS pointer and not the file itself${size === undefined ? "" : `, which has ${size} bytes`}: fetch the file with "git lfs pull" in that folder, or download it from the hub.`,
  );
}
