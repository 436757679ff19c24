/**
 * The geometry of the value function's picture: v = lambda sigmoid(u) of both classes, every example of an update on
 * it, the reference point at u = 0, and where the slope is so small that rows hardly move the model. Numbers alone;
 * drawn by value-function.tsx.
 */
import type { ExampleLine } from "../protocol.ts";

/** sigmoid(u)(1 - sigmoid(u)) is 0.01 here: beyond it a row is called saturated. */
export const SATURATED_FROM: number = Math.log((1 + Math.sqrt(0.96)) / (1 - Math.sqrt(0.96)));

/** Points of a curve. */
const CURVE_POINTS = 81;

export interface PicturePoint {
  /** The row of the feedback. */
  readonly index: number;
  readonly label: boolean;
  readonly u: number;
  readonly v: number;
  readonly reward: number;
  readonly saturated: boolean;
}

export interface Picture {
  /** The range of u that is shown, as far to the left as to the right. */
  readonly reach: number;
  readonly top: number;
  readonly points: readonly PicturePoint[];
  readonly curves: {
    readonly desirable: readonly [number, number][];
    readonly undesirable: readonly [number, number][];
  };
}

export function pictureOf(line: ExampleLine): Picture {
  const points = line.index.flatMap((index, at): PicturePoint[] => {
    const [u, v, ratio] = [line.u[at], line.v[at], line.log_ratio[at]];
    if (u === null || u === undefined || v === null || v === undefined) return [];
    const [label, saturated] = [line.label[at] === true, line.saturated[at] === true];
    return [{ index, label, u, v, reward: line.beta * (ratio ?? Number.NaN), saturated }];
  });
  const farthest = points.reduce((most, { u }) => Math.max(most, Math.abs(u)), 0);
  const reach = Math.max(1, niceAbove(farthest));
  const curve = (weight: number) =>
    Array.from({ length: CURVE_POINTS }, (_, i): [number, number] => {
      const u = -reach + (2 * reach * i) / (CURVE_POINTS - 1);
      return [u, weight / (1 + Math.exp(-u))];
    });
  return {
    ...{ reach, points, top: Math.max(line.desirable_weight, line.undesirable_weight) },
    curves: { desirable: curve(line.desirable_weight), undesirable: curve(line.undesirable_weight) },
  };
}

/** How many rewards of each class lie in equal parts of a range. */
export interface Histogram {
  /** The range, as far to the left of 0 as to the right. */
  readonly reach: number;
  readonly up: readonly number[];
  readonly down: readonly number[];
}

/** @param bins an even number, so that 0 is an edge */
export function histogramOf(points: readonly PicturePoint[], bins: number): Histogram {
  const known = points.filter(({ reward }) => Number.isFinite(reward));
  const reach = niceAbove(known.reduce((most, { reward }) => Math.max(most, Math.abs(reward)), 0)) || 1;
  const counts = (label: boolean) => {
    const found = Array.from({ length: bins }, () => 0);
    for (const { reward } of known.filter((point) => point.label === label)) {
      const bin = Math.min(bins - 1, Math.floor(((reward + reach) / (2 * reach)) * bins));
      found[bin] = (found[bin] ?? 0) + 1;
    }
    return found;
  };
  return { reach, up: counts(true), down: counts(false) };
}

/** 1, 2 or 5 times a power of ten, not below a number. */
function niceAbove(value: number): number {
  if (!(value > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5].find((factor) => factor * power >= value) ?? 10) * power;
}

/** Round numbers of a range, about so many. */
export function ticks(low: number, high: number, about: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10) * power;
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A number of an axis in few characters: 12k, 0.25, 5e-6. */
export function compact(value: number | null): string {
  if (value === null) return "";
  const size = Math.abs(value);
  const unit = [...UNITS].reverse().find(({ from }) => size >= from);
  if (unit) return `${Number((value / unit.per).toPrecision(4))}${unit.name}`;
  return size > 0 && size < 1e-3
    ? value.toExponential().replace(/(\.\d{2})\d*/, "$1")
    : String(Number(value.toPrecision(4)));
}

const UNITS = [
  { from: 1e4, name: "k", per: 1e3 },
  { from: 1e6, name: "M", per: 1e6 },
  { from: 1e9, name: "G", per: 1e9 },
] as const;

/** Smoothed values: an exponential mean that forgets by `share` a point, without the bias of its beginning. */
export function smoothed(values: readonly number[], share: number): number[] {
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    sum = share * sum + (1 - share) * value;
    weight = share * weight + (1 - share);
    return sum / weight;
  });
}
