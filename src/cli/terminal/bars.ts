/** Small pictures in a line of text: a sparkline of a curve, a bar of how far work is; and the curve's memory. */
import type { Theme } from "./styled.ts";

/** Levels from low to high. */
const LEVELS = { blocks: "▁▂▃▄▅▆▇█", ascii: ".:-=+*#@" } as const;

/** Values that a curve keeps; a terminal has fewer columns. */
const MOST_KEPT = 256;

/** A curve in bounded memory: means of so many values each, and the values of the mean that is not complete. */
export interface Curve {
  readonly means: readonly number[];
  /** Values that make up one mean. */
  readonly each: number;
  readonly rest: readonly number[];
}

export const NO_CURVE: Curve = { means: [], each: 1, rest: [] };

/** The curve with one more value; what is not finite is left out. */
export function withValue(curve: Curve, value: number): Curve {
  if (!Number.isFinite(value)) return curve;
  const rest = [...curve.rest, value];
  if (rest.length < curve.each) return { ...curve, rest };
  const means = [...curve.means, mean(rest)];
  if (means.length < MOST_KEPT) return { ...curve, means, rest: [] };
  return { means: inGroups(means, MOST_KEPT / 2), each: 2 * curve.each, rest: [] };
}

/** The curve in at most `width` characters, each the mean of equally many values; the lowest and highest of them span it. */
export function sparkline({ means, rest }: Curve, width: number, { unicode }: Theme): string {
  const all = rest.length > 0 ? [...means, mean(rest)] : means;
  const values = inGroups(all, width);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const levels = unicode ? LEVELS.blocks : LEVELS.ascii;
  return values
    .map((value) => {
      const height = most > least ? (value - least) / (most - least) : 0;
      return levels[Math.min(levels.length - 1, Math.floor(height * levels.length))];
    })
    .join("");
}

/** A bar of so many characters: what is done, and what is left. @param share from 0 to 1 */
export function bar(
  share: number,
  width: number,
  { unicode }: Theme,
): { readonly done: string; readonly left: string } {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * width);
  const [done, left] = unicode ? ["━", "─"] : ["=", "."];
  return { done: done.repeat(filled), left: left.repeat(width - filled) };
}

/** The means of at most `most` groups of neighbours, whose sizes differ by one at most. */
function inGroups(values: readonly number[], most: number): number[] {
  const groups = Math.min(values.length, most);
  return Array.from({ length: groups }, (_, group) => {
    const [from, to] = [group, group + 1].map((at) => Math.floor((at * values.length) / groups));
    return mean(values.slice(from, to));
  });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
