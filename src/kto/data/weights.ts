/**
 * Class weights for unequal numbers of thumbs: lambda_D n_D / (lambda_U n_U) belongs in [1, 3/2] (KTO paper, section
 * 4.2, "hyperparameters"). Computes weights and gives advice; a run sets its weights itself.
 */

/** The range that the paper recommends for the ratio. */
export const recommendedRatio = { low: 1, high: 3 / 2 } as const;

/** The ratio that `autoWeights` aims at. */
export const targetRatio = 4 / 3;

export interface ClassWeights {
  readonly desirable: number;
  readonly undesirable: number;
}

/** lambda_D n_D / (lambda_U n_U); Infinity or NaN where a class is absent or weightless. */
export function weightRatio(
  desirableRows: number,
  undesirableRows: number,
  desirableWeight: number,
  undesirableWeight: number,
): number {
  return (desirableWeight * desirableRows) / (undesirableWeight * undesirableRows);
}

/**
 * Weights that bring the ratio to 4/3 by the smaller class's weight, the other being 1: 1 desirable row to 10
 * undesirable ones give lambda_D = 13.33, 10 to 1 give lambda_U = 7.5. Both 1 if a class is absent.
 */
export function autoWeights(desirableRows: number, undesirableRows: number): ClassWeights {
  if (desirableRows === 0 || undesirableRows === 0) return { desirable: 1, undesirable: 1 };
  return desirableRows <= undesirableRows
    ? { desirable: (targetRatio * undesirableRows) / desirableRows, undesirable: 1 }
    : { desirable: 1, undesirable: desirableRows / (targetRatio * undesirableRows) };
}

/**
 * Solves "auto": where one weight is given, the other one for lambda_D n_D = 4/3 lambda_U n_U; where both are "auto",
 * that of the smaller class. With one class absent "auto" is the given weight, or 1.
 */
export function solveWeights(
  desirable: number | "auto",
  undesirable: number | "auto",
  examples: readonly { readonly label: boolean }[],
): ClassWeights {
  const good = examples.filter(({ label }) => label).length;
  const bad = examples.length - good;
  const bothThere = good > 0 && bad > 0;
  if (desirable !== "auto" && undesirable !== "auto") return { desirable, undesirable };
  if (desirable !== "auto") {
    return { desirable, undesirable: bothThere ? (desirable * good) / (targetRatio * bad) : desirable };
  }
  if (undesirable !== "auto") {
    return { desirable: bothThere ? (targetRatio * undesirable * bad) / good : undesirable, undesirable };
  }
  return autoWeights(good, bad);
}

/**
 * A sentence when the ratio lies outside [1, 3/2], naming the weights that would mend it; undefined when it lies
 * inside, or when a class is absent (which is another warning).
 */
export function weightAdvice(
  desirableRows: number,
  undesirableRows: number,
  desirableWeight: number,
  undesirableWeight: number,
): string | undefined {
  if (desirableRows === 0 || undesirableRows === 0) return undefined;
  const ratio = weightRatio(desirableRows, undesirableRows, desirableWeight, undesirableWeight);
  const { low, high } = recommendedRatio;
  const rounding = 1e-9;
  if (ratio >= low * (1 - rounding) && ratio <= high * (1 + rounding)) return undefined;
  const mends: string[] = [];
  if (undesirableWeight > 0) {
    const unit = (undesirableWeight * undesirableRows) / desirableRows;
    mends.push(`desirable_weight between ${rounded(low * unit, Math.ceil)} and ${rounded(high * unit, Math.floor)}`);
  }
  if (desirableWeight > 0) {
    const unit = (desirableWeight * desirableRows) / undesirableRows;
    mends.push(`undesirable_weight between ${rounded(unit / high, Math.ceil)} and ${rounded(unit / low, Math.floor)}`);
  }
  const auto = autoWeights(desirableRows, undesirableRows);
  const remedy =
    mends.length > 0
      ? mends.join(", or ")
      : `desirable_weight ${rounded(auto.desirable)} and undesirable_weight ${rounded(auto.undesirable)}`;
  return (
    `With ${desirableRows} desirable and ${undesirableRows} undesirable rows, desirable_weight ${desirableWeight} and ` +
    `undesirable_weight ${undesirableWeight} give a weighted ratio of ${Number.isFinite(ratio) ? rounded(ratio) : "infinity"}, outside [1, 1.5]; set ${remedy}.`
  );
}

/** Rounds to at least three significant digits. The ends of a range are rounded inward, so that they lie within it. */
function rounded(value: number, round: (value: number) => number = Math.round): string {
  if (!(value > 0)) return String(value);
  const decimals = Math.max(2, 2 - Math.floor(Math.log10(value)));
  // Round to twelve digits first, so that 9.999999999999998 does not become 9.99.
  return String(shiftPoint(round(Number(shiftPoint(value, decimals).toPrecision(12))), -decimals));
}

/** Computes value * 10^places by its decimal text, since a multiplication is not exact. */
function shiftPoint(value: number, places: number): number {
  const [digits, exponent = "0"] = String(value).split("e");
  return Number(`${digits}e${Number(exponent) + places}`);
}
