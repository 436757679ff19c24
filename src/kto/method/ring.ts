/**
 * The order of one microbatch on its ring, where each row's neighbour gives its mismatched completion: two rows with
 * equal prompts or equal completions clash and should not be neighbours. Search only; no randomness of its own.
 */
import type { Random } from "../../engine/random.ts";
import type { RowKeys } from "../data/equal-rows.ts";

/** Exhaustive search is for microbatches up to this size: at most 7! orders. */
const exhaustiveSize = 8;

/** The rows of one microbatch in order, and how many of their m neighbouring pairs clash. */
export interface Ring {
  readonly rows: readonly number[];
  readonly clashes: number;
}

/**
 * Rows in an order with as few clashes as the search finds. There are none whenever any two clashing rows are
 * compatible with m rows between them (Ore's condition, by Palmer's exchange), in particular when clashes come from
 * one text that at most half of the rows share, and whenever an order without exists for m of at most 8.
 */
export function arrangeRing(rows: readonly number[], keys: RowKeys, random: Random): Ring {
  const order = [...rows];
  const clash = (a: number, b: number) =>
    keys.prompt[a] === keys.prompt[b] || keys.completion[a] === keys.completion[b] ? 1 : 0;
  let clashes = countClashes(order, clash);
  // Up to three rows, every row is every other's neighbour.
  if (clashes === 0 || order.length <= 3) return { rows: order, clashes };
  const least = fewestClashes(order, keys);
  clashes -= exchangeEdges(order, clash, clashes - least, random);
  if (clashes > 0 && least === 0 && order.length <= exhaustiveSize) {
    const found = searchAll(order, clash);
    if (found) return { rows: found, clashes: 0 };
  }
  return { rows: order, clashes };
}

type Clash = (a: number, b: number) => 0 | 1;

function countClashes(order: readonly number[], clash: Clash): number {
  let count = 0;
  for (let i = 0; i < order.length; i++) count += clash(order[i] as number, order[(i + 1) % order.length] as number);
  return count;
}

/** A lower bound for one ring: c rows with the same text among m make at least c - (m - c) clashes. */
export function fewestClashes(rows: readonly number[], keys: RowKeys): number {
  let most = 0;
  for (const key of [keys.prompt, keys.completion]) {
    const counts = new Map<number, number>();
    for (const row of rows) {
      const text = key[row] as number;
      const count = (counts.get(text) ?? 0) + 1;
      counts.set(text, count);
      if (count > most) most = count;
    }
  }
  return Math.max(0, 2 * most - rows.length);
}

/**
 * Removes clashes in place: reversing the stretch p+1 .. q replaces the neighbours (p, p+1) and (q, q+1) by (p, q) and
 * (p+1, q+1). Moves that change nothing are taken up to 2m times, to leave dead ends.
 *
 * @returns how many clashes were removed, at most `excess`
 */
function exchangeEdges(order: number[], clash: Clash, excess: number, random: Random): number {
  const size = order.length;
  const at = (i: number) => order[i % size] as number;
  let removed = 0;
  let sideways = 2 * size;
  while (removed < excess) {
    const offset = random.below(size);
    let best: { p: number; q: number; gain: number } | undefined;
    for (let step = 0; step < size && (best?.gain ?? 0) <= 0; step++) {
      const p = (offset + step) % size;
      if (!clash(at(p), at(p + 1))) continue;
      const turn = random.below(size);
      for (let i = 0; i < size; i++) {
        const q = (turn + i) % size;
        // The stretch between neighbours of the clash has one row: to reverse it changes nothing.
        if (q === p || q === (p + 1) % size || p === (q + 1) % size) continue;
        const gain = 1 + clash(at(q), at(q + 1)) - clash(at(p), at(q)) - clash(at(p + 1), at(q + 1));
        if (gain > (best?.gain ?? -1)) best = { p, q, gain };
      }
    }
    if (!best || (best.gain === 0 && sideways-- === 0)) return removed;
    reverse(order, best.p + 1, best.q);
    removed += best.gain;
  }
  return removed;
}

/** Reverses the stretch from..to of the ring, going round its end where `to` comes first. */
function reverse(order: number[], from: number, to: number): void {
  const size = order.length;
  const length = ((to - from + size) % size) + 1;
  for (let i = 0; i < length >> 1; i++) {
    const a = (from + i) % size;
    const b = (from + length - 1 - i) % size;
    const held = order[a] as number;
    order[a] = order[b] as number;
    order[b] = held;
  }
}

/** An order without any clash, if there is one. */
function searchAll(rows: readonly number[], clash: Clash): number[] | undefined {
  const [first, ...rest] = rows as [number, ...number[]];
  const order = [first];
  const left = new Set(rest);
  const extend = (): boolean => {
    const last = order.at(-1) as number;
    if (left.size === 0) return clash(last, first) === 0;
    for (const row of [...left]) {
      if (clash(last, row)) continue;
      left.delete(row);
      order.push(row);
      if (extend()) return true;
      order.pop();
      left.add(row);
    }
    return false;
  };
  return extend() ? order : undefined;
}
