/**
 * RMSNorm (Zhang and Sennrich 2019, as in Llama) and LayerNorm (Ba et al. 2016, biased variance as in PyTorch), forward
 * and backward, in float64. T is rows, C is columns; C is taken from the weight's length.
 */
import { add, at } from "./elements.ts";

/**
 * `inverseRms[t] = 1 / sqrt(mean_c x[t, c]^2 + epsilon)`, `y[t, c] = weight[c] x[t, c] inverseRms[t]`.
 *
 * @param x [T, C] @param weight [C]
 * @returns y [T, C], inverseRms [T]
 */
export function rmsNormForward(
  x: Float64Array,
  weight: Float64Array,
  epsilon: number,
): { y: Float64Array; inverseRms: Float64Array } {
  const columns = weight.length;
  const rows = x.length / columns;
  const y = new Float64Array(x.length);
  const inverseRms = new Float64Array(rows);
  for (let t = 0; t < rows; t++) {
    let squares = 0;
    for (let c = 0; c < columns; c++) squares += at(x, t * columns + c) ** 2;
    const inverse = 1 / Math.sqrt(squares / columns + epsilon);
    inverseRms[t] = inverse;
    for (let c = 0; c < columns; c++) y[t * columns + c] = at(weight, c) * at(x, t * columns + c) * inverse;
  }
  return { y, inverseRms };
}

/**
 * With `s = inverseRms[t]` and `g = dy weight`:
 * `dx[t, c] = s g[c] - x[t, c] s^3 mean_c(g x)`, `dWeight[c] = sum_t dy[t, c] x[t, c] s`.
 *
 * @param dy [T, C] @param x [T, C] @param weight [C] @param inverseRms [T]
 * @returns dx [T, C], dWeight [C]
 */
export function rmsNormBackward(
  dy: Float64Array,
  x: Float64Array,
  weight: Float64Array,
  inverseRms: Float64Array,
): { dx: Float64Array; dWeight: Float64Array } {
  const columns = weight.length;
  const dx = new Float64Array(x.length);
  const dWeight = new Float64Array(columns);
  for (let t = 0; t < inverseRms.length; t++) {
    const inverse = at(inverseRms, t);
    let projection = 0;
    for (let c = 0; c < columns; c++) {
      const i = t * columns + c;
      projection += at(dy, i) * at(weight, c) * at(x, i);
      add(dWeight, c, at(dy, i) * at(x, i) * inverse);
    }
    const pull = (inverse ** 3 * projection) / columns;
    for (let c = 0; c < columns; c++) {
      const i = t * columns + c;
      dx[i] = inverse * at(dy, i) * at(weight, c) - at(x, i) * pull;
    }
  }
  return { dx, dWeight };
}

/**
 * `inverseStd[t] = 1 / sqrt(mean_c (x - mean[t])^2 + epsilon)`,
 * `y[t, c] = weight[c] (x[t, c] - mean[t]) inverseStd[t] + bias[c]`.
 *
 * @param x [T, C] @param weight [C] @param bias [C]
 * @returns y [T, C], mean [T], inverseStd [T]
 */
export function layerNormForward(
  x: Float64Array,
  weight: Float64Array,
  bias: Float64Array,
  epsilon: number,
): { y: Float64Array; mean: Float64Array; inverseStd: Float64Array } {
  const columns = weight.length;
  const rows = x.length / columns;
  const y = new Float64Array(x.length);
  const mean = new Float64Array(rows);
  const inverseStd = new Float64Array(rows);
  for (let t = 0; t < rows; t++) {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += at(x, t * columns + c);
    const rowMean = sum / columns;
    let squares = 0;
    for (let c = 0; c < columns; c++) squares += (at(x, t * columns + c) - rowMean) ** 2;
    const inverse = 1 / Math.sqrt(squares / columns + epsilon);
    mean[t] = rowMean;
    inverseStd[t] = inverse;
    for (let c = 0; c < columns; c++) {
      y[t * columns + c] = at(weight, c) * (at(x, t * columns + c) - rowMean) * inverse + at(bias, c);
    }
  }
  return { y, mean, inverseStd };
}

/**
 * With `n = (x - mean) inverseStd` and `g = dy weight`:
 * `dx[t, c] = inverseStd[t] (g[c] - mean_c(g) - n[c] mean_c(g n))`, `dWeight = sum_t dy n`, `dBias = sum_t dy`.
 *
 * @param dy [T, C] @param x [T, C] @param weight [C] @param mean [T] @param inverseStd [T]
 * @returns dx [T, C], dWeight [C], dBias [C]
 */
export function layerNormBackward(
  dy: Float64Array,
  x: Float64Array,
  weight: Float64Array,
  mean: Float64Array,
  inverseStd: Float64Array,
): { dx: Float64Array; dWeight: Float64Array; dBias: Float64Array } {
  const columns = weight.length;
  const dx = new Float64Array(x.length);
  const dWeight = new Float64Array(columns);
  const dBias = new Float64Array(columns);
  for (let t = 0; t < mean.length; t++) {
    const rowMean = at(mean, t);
    const inverse = at(inverseStd, t);
    let sum = 0;
    let projection = 0;
    for (let c = 0; c < columns; c++) {
      const i = t * columns + c;
      const normalized = (at(x, i) - rowMean) * inverse;
      const g = at(dy, i) * at(weight, c);
      sum += g;
      projection += g * normalized;
      add(dWeight, c, at(dy, i) * normalized);
      add(dBias, c, at(dy, i));
    }
    for (let c = 0; c < columns; c++) {
      const i = t * columns + c;
      const normalized = (at(x, i) - rowMean) * inverse;
      dx[i] = inverse * (at(dy, i) * at(weight, c) - sum / columns - (normalized * projection) / columns);
    }
  }
  return { dx, dWeight, dBias };
}
