/**
 * Which rows make up each ring of an epoch, and in which order, since row i's mismatched completion is that of row
 * (i + 1) mod m. A ring is a microbatch, or an update whose reference point is taken over all its rows. A pure function
 * of data, seed and epoch: a checkpoint needs only the position. Not packing.
 */
import { Random } from "../../engine/random.ts";
import { ConfigError, DatasetError } from "../../errors.ts";
import { equalIds, keysOf, type SampledRow } from "../data/equal-rows.ts";
import { arrangeRing, fewestClashes, type Ring } from "./ring.ts";

export type { SampledRow } from "../data/equal-rows.ts";

export interface EpochOptions {
  /** Rows per microbatch at most. */
  readonly batchSize: number;
  /** Whole number from 0. */
  readonly seed: number;
  /** 0 for the first pass over the data. */
  readonly epoch: number;
  /** False keeps the order of the examples, whatever pairs it makes. Default true. */
  readonly shuffle?: boolean;
  /**
   * Rows of similar length (tokens of prompt and completion) come into one microbatch, as transformers'
   * group_by_length: shuffled rows are sorted within stretches of 50 microbatches. Default false.
   */
  readonly groupByLength?: boolean;
  /**
   * False for objectives without a reference point to estimate: pairs do not matter, one row is enough. Default true.
   */
  readonly mismatched?: boolean;
  /** The rows are to evaluate on, for messages. Default false: to train on. */
  readonly evaluates?: boolean;
}

/** The pairs (x_i, y_j) of one microbatch. */
export interface MismatchedPairs {
  /** j for each row: (i + 1) mod m. */
  readonly pair: number[];
  /** False where x_j = x_i or y_j = y_i: such a pair says nothing about the reference point and leaves its mean. */
  readonly valid: boolean[];
}

/** Generator streams: what is left out must not depend on the epoch's own shuffle. */
const leaveOutStream = 0;
const firstEpochStream = 1;

/** Microbatches among which rows are sorted by length: enough to choose from, few enough to leave an epoch random. */
const sortedMicrobatches = 50;

/** Exchanges of rows between microbatches are given up after so many in a row that reached no new minimum. */
const fruitlessExchanges = 1000;
/** After this many, some exchanges that make it worse are taken, to leave a local minimum. */
const patientExchanges = 500;
const worseAccepted = 1 / 4;

/**
 * Microbatches of indices into `examples`: every row once, in ceil(n / batchSize) microbatches whose sizes differ by
 * one at most, each with its proportional share of both classes (rounded), no pair (x_i, y_{i+1}) with equal prompts
 * or equal completions where the search finds an order without. A row that would stand alone is left out of this
 * epoch, another one each epoch (`rowsLeftOut` counts it).
 *
 * @throws ConfigError for a batch size of 1 (or not a whole number); DatasetError for fewer than two examples
 */
export function epochSchedule(examples: readonly SampledRow[], options: EpochOptions): number[][] {
  const { batchSize, seed, epoch, shuffle = true, groupByLength = false, mismatched = true } = options;
  checkSizes(examples.length, options);
  const rows = examples.map((_, index) => index);
  if (mismatched) leaveOutOne(rows, batchSize, seed, epoch);
  const sizes = microbatchSizes(rows.length, batchSize);
  if (!shuffle) return consecutive(rows, sizes);
  const random = new Random(seed, firstEpochStream + epoch);
  const stretch = groupByLength ? sortedMicrobatches : 1;
  const microbatches = stratified(rows, sizes, examples, random, stretch);
  return mismatched ? arranged(microbatches, examples, random) : microbatches;
}

/**
 * The microbatches of at most `size` rows that a ring is computed in, in its order; their sizes differ by one at most.
 */
export function microbatchesOf(ring: readonly number[], size: number): number[][] {
  return consecutive(ring, microbatchSizes(ring.length, size));
}

/** How many of n examples a schedule leaves out (0 or 1). */
export function rowsLeftOut(exampleCount: number, schedule: readonly (readonly number[])[]): number {
  return exampleCount - schedule.reduce((sum, microbatch) => sum + microbatch.length, 0);
}

/** The mismatched pair of each row of a microbatch (its examples in order), and whether it may be used. */
export function mismatchedPairs(microbatch: readonly SampledRow[]): MismatchedPairs {
  const size = microbatch.length;
  const pair = microbatch.map((_, i) => (i + 1) % size);
  const valid = microbatch.map((row, i) => {
    const other = microbatch[(i + 1) % size] as SampledRow;
    return !equalIds(row.promptIds, other.promptIds) && !equalIds(row.completionIds, other.completionIds);
  });
  return { pair, valid };
}

function checkSizes(count: number, { batchSize, mismatched = true, evaluates = false }: EpochOptions): void {
  const [option, use] = evaluates
    ? ["per_device_eval_batch_size", "to evaluate on"]
    : ["per_device_train_batch_size", "to train on"];
  if (!Number.isInteger(batchSize) || batchSize < 1) {
    throw new ConfigError(`${option} is ${batchSize}; it must be a whole number of at least 1.`);
  }
  if (count === 0) throw new DatasetError(`There are no examples ${use}.`);
  if (!mismatched) return;
  if (batchSize === 1) {
    throw new ConfigError(
      `${option} is 1, but KTO estimates its reference point from the completions of other rows, and a single row has none; use at least 2 (8 or more recommended), or set gradient_accumulation_steps, over whose rows reference_point_scope "step" takes it.`,
    );
  }
  if (count === 1) {
    throw new DatasetError(
      `There is only 1 example ${use}, but KTO estimates its reference point from the completions of other rows; give at least 2.`,
    );
  }
}

/** Removes one row where a microbatch would have one row only; over n epochs every row is left out once. */
function leaveOutOne(rows: number[], batchSize: number, seed: number, epoch: number): void {
  if (!microbatchSizes(rows.length, batchSize).includes(1)) return;
  const order = new Random(seed, leaveOutStream).shuffle([...rows]);
  rows.splice(order[epoch % order.length] as number, 1);
}

/** Sizes of ceil(n / batchSize) microbatches that differ by one at most, the larger ones spread evenly. */
function microbatchSizes(count: number, batchSize: number): number[] {
  const batches = Math.ceil(count / batchSize);
  return Array.from({ length: batches }, (_, k) => {
    return Math.floor(((k + 1) * count) / batches) - Math.floor((k * count) / batches);
  });
}

function consecutive(rows: readonly number[], sizes: readonly number[]): number[][] {
  let start = 0;
  return sizes.map((size) => {
    start += size;
    return rows.slice(start - size, start);
  });
}

/**
 * Deals both classes, each shuffled, over the microbatches: the first k microbatches together hold floor(share + phase)
 * desirable rows, so that each holds its share rounded up or down. Within a stretch of several microbatches the rows of
 * each class are dealt by their length, the longest first.
 */
function stratified(
  rows: readonly number[],
  sizes: readonly number[],
  examples: readonly SampledRow[],
  random: Random,
  stretch: number,
): number[][] {
  const desirable = random.shuffle(rows.filter((row) => examples[row]?.label));
  const undesirable = random.shuffle(rows.filter((row) => !examples[row]?.label));
  const phase = random.float();
  let filled = 0;
  let dealt = 0;
  const microbatches = sizes.map((size, k) => {
    if (stretch > 1 && k % stretch === 0) {
      const next = sizes.slice(k, k + stretch).reduce((sum, rows) => sum + rows, 0);
      const dealtThen = Math.floor(((filled + next) * desirable.length) / rows.length + phase);
      sortByLength(desirable, dealt, dealtThen, examples);
      sortByLength(undesirable, filled - dealt, filled + next - dealtThen, examples);
    }
    filled += size;
    // Whole numbers first: the share of the last microbatch is then exact.
    const upTo = Math.floor((filled * desirable.length) / rows.length + phase);
    const fromDesirable = desirable.slice(dealt, upTo);
    const others = filled - size - dealt;
    const fromUndesirable = undesirable.slice(others, others + size - fromDesirable.length);
    dealt = upTo;
    return random.shuffle([...fromDesirable, ...fromUndesirable]);
  });
  return random.shuffle(microbatches);
}

/** Sorts rows [from, to) in place, the longest first; equally long ones stay in their random order. */
function sortByLength(rows: number[], from: number, to: number, examples: readonly SampledRow[]): void {
  const length = (row: number) => {
    const example = examples[row];
    return example === undefined ? 0 : example.promptIds.length + example.completionIds.length;
  };
  const sorted = rows.slice(from, to).sort((a, b) => length(b) - length(a));
  rows.splice(from, sorted.length, ...sorted);
}

/** Orders each microbatch on its ring; where that is not enough, exchanges rows of one class between microbatches. */
function arranged(microbatches: readonly number[][], examples: readonly SampledRow[], random: Random): number[][] {
  const keys = keysOf(examples);
  const rings = microbatches.map((rows) => arrangeRing(rows, keys, random));
  let clashes = rings.reduce((sum, ring) => sum + ring.clashes, 0);
  // No distribution over microbatches can have fewer clashes than one large ring must have.
  const least = clashes === 0 ? 0 : fewestClashes(microbatches.flat(), keys);
  let fewest = clashes;
  /** What was replaced since the fewest clashes were reached, to go back to them. */
  let replaced: [ring: number, before: Ring][] = [];
  // Every ring with clashes is listed; some that have none any more may be.
  const unsolved = rings.flatMap(({ clashes }, k) => (clashes > 0 ? [k] : []));
  let fruitless = 0;
  while (fewest > least && fruitless < fruitlessExchanges && rings.length > 1) {
    const chosen = random.below(unsolved.length);
    const k = unsolved[chosen] as number;
    const here = rings[k] as Ring;
    if (here.clashes === 0) {
      unsolved[chosen] = unsolved.at(-1) as number;
      unsolved.pop();
      continue;
    }
    fruitless++;
    // Half of the time with another that has clashes: what one has too many of, the other often lacks.
    const other =
      random.below(2) === 0
        ? (unsolved[random.below(unsolved.length)] as number)
        : (k + 1 + random.below(rings.length - 1)) % rings.length;
    if (other === k) continue;
    const there = rings[other] as Ring;
    const [newHere, newThere] = exchanged(here, there, examples, random);
    const gain = here.clashes + there.clashes - newHere.clashes - newThere.clashes;
    if (gain < 0 && (fruitless <= patientExchanges || random.float() > worseAccepted)) continue;
    rings[k] = newHere;
    rings[other] = newThere;
    if (there.clashes === 0 && newThere.clashes > 0) unsolved.push(other);
    replaced.push([k, here], [other, there]);
    clashes -= gain;
    if (clashes < fewest) {
      fewest = clashes;
      replaced = [];
      fruitless = 0;
    }
  }
  for (const [k, before] of replaced.reverse()) rings[k] = before;
  return rings.map(({ rows }) => [...rows]);
}

/** Two microbatches after a random row of one has changed places with a random row of its class in the other. */
function exchanged(here: Ring, there: Ring, examples: readonly SampledRow[], random: Random): [Ring, Ring] {
  const keys = keysOf(examples);
  const leaving = random.below(here.rows.length);
  const label = examples[here.rows[leaving] as number]?.label;
  const partners = there.rows.flatMap((row, i) => (examples[row]?.label === label ? [i] : []));
  if (partners.length === 0) return [here, there];
  const entering = partners[random.below(partners.length)] as number;
  return [
    arrangeRing(here.rows.with(leaving, there.rows[entering] as number), keys, random),
    arrangeRing(there.rows.with(entering, here.rows[leaving] as number), keys, random),
  ];
}
