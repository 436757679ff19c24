/**
 * Holds rows out of training for evaluation. Rows of one prompt stay on one side, so that no prompt is trained on and
 * evaluated.
 */
import { Random } from "../../engine/random.ts";
import { counted, DatasetError } from "../../errors.ts";
import { keysOf, type SampledRow } from "./equal-rows.ts";

/** A random stream that the sampler, whose streams count epochs from 0, never reaches. */
const STREAM = 2 ** 41;

/**
 * Splits examples by prompt. Prompts are drawn by the seed, with all their rows, until there are enough. Each side keeps
 * the order of the examples.
 *
 * @param share of the rows to hold out, above 0 and below 1, or their number
 * @throws DatasetError if a side would have fewer than two rows
 */
export function holdOut<Row extends SampledRow>(
  examples: readonly Row[],
  share: number,
  seed: number,
): { training: Row[]; validation: Row[] } {
  const { prompt } = keysOf(examples);
  const sizes = new Map<number, number>();
  for (const key of prompt) sizes.set(key, (sizes.get(key) ?? 0) + 1);
  const wanted = share < 1 ? share * examples.length : share;
  const held = new Set<number>();
  let rows = 0;
  for (const key of new Random(seed, STREAM).shuffle([...sizes.keys()])) {
    if (rows >= wanted) break;
    held.add(key);
    rows += sizes.get(key) ?? 0;
  }
  const isHeld = (index: number) => held.has(prompt[index] ?? -1);
  const training = examples.filter((_, index) => !isHeld(index));
  const validation = examples.filter((_, index) => isHeld(index));
  if (training.length < 2 || validation.length < 2) {
    throw new DatasetError(
      `validation_split ${share} of ${counted(examples.length, "row")} with ${counted(sizes.size, "different prompt")} leaves ${training.length} to train on and ${validation.length} to evaluate on, and both need at least 2; rows of one prompt stay together, so choose another size or give eval_dataset_name.`,
    );
  }
  return { training, validation };
}
