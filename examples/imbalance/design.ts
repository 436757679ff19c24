/**
 * What a seed makes of the rows: labels shuffled or not, the split by prompt, and the imbalance. Both weightings of a
 * seed get the same rows; nothing is trained here.
 */
import { Random } from "../../src/engine/random.ts";
import { type Example, holdOut } from "../../src/index.ts";

/** Share of the rows that is held out to evaluate on. */
export const validationShare = 0.25;
/** Share of the desirable training rows that is kept. */
export const desirableShare = 0.1;

/** Generator streams of a seed. */
const SHUFFLED_LABELS = 1;
const KEPT_ROWS = 2;

export interface Split {
  /** All undesirable rows and some of the desirable ones. */
  readonly training: readonly Example[];
  /** As many desirable rows as undesirable ones, and of each comparison both; no prompt of `training`. */
  readonly validation: readonly Example[];
}

/**
 * @param examples of `judge`: both rows of each comparison
 * @param shuffled draws by a coin which answer of a comparison is the better one, in training and validation
 */
export function splitOf(examples: readonly Example[], seed: number, shuffled: boolean): Split {
  const { training, validation } = holdOut(
    shuffled ? withShuffledLabels(examples, seed) : examples,
    validationShare,
    seed,
  );
  const desirable = new Random(seed, KEPT_ROWS).shuffle(training.filter(({ label }) => label));
  const kept = new Set(desirable.slice(0, Math.round(desirableShare * desirable.length)));
  return { training: training.filter((row) => !row.label || kept.has(row)), validation };
}

/** The two labels of a comparison change places or not, so that the classes stay equal. */
function withShuffledLabels(examples: readonly Example[], seed: number): Example[] {
  const random = new Random(seed, SHUFFLED_LABELS);
  const turned = new Map<number | undefined, boolean>();
  return examples.map((row) => {
    const turn = turned.get(row.pairId) ?? random.below(2) === 1;
    turned.set(row.pairId, turn);
    return turn ? { ...row, label: !row.label } : row;
  });
}
