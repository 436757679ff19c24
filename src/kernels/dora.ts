/**
 * DoRA (Liu et al. 2024, "Weight-Decomposed Low-Rank Adaptation"): the length of each output's row of weights is trained
 * apart from its direction, V = W + scale B A:
 *
 *   y = gain (x V^T)        gain_o = m_o / n_o,  n_o = |V_o|, a constant to the gradient (section 4.3, and PEFT)
 *
 * V is nowhere in memory. With P = A W^T, G = A A^T and the rows' squares of W, which never change,
 *
 *   n_o^2 = |W_o|^2 + 2 scale B_o P_o + scale^2 B_o G B_o^T
 *
 * and the gradients follow from those of LoRA: dV = gain dy^T x, dm_o = sum over rows of dy_o u_o / n_o, u = x V^T.
 */
import { inFormats, type Kernel, kernel, type WeightFormat } from "./kernel.ts";
import {
  activationBinding,
  loadedActivation,
  storedActivation,
  storedBinding,
  storedBytes,
  storedElement,
  storedFunctions,
} from "./stored.ts";
import { elementwise, elementwiseGrid, rowElements, rowElementsGrid } from "./wgsl.ts";

type SquaresKernel = Kernel<"weight" | "squares", "R" | "C" | "N" | "byColumn" | "first">;

const squaresKernel = (format: WeightFormat): SquaresKernel =>
  kernel({
    name: "rowSquares",
    read: { weight: storedBinding(format, "R, C", false) },
    write: { squares: "f32[N]" },
    uniforms: { R: "u32", C: "u32", N: "u32", byColumn: "u32", first: "u32" },
    divisible: true,
    wgsl: /* wgsl */ `${storedFunctions(format, "weight")}
fn element(i: u32) {
  let byColumn = u.byColumn != 0u;
  let count = select(u.C, u.R, byColumn);
  let step = select(1u, u.C, byColumn);
  var at = select(i * u.C, i, byColumn);
  var sum = 0.0;
  for (var j = 0u; j < count; j++) {
    let value = ${storedElement(format, "weight", "at")};
    sum += value * value;
    at += step;
  }
  squares[u.first + i] += sum;
}
${elementwise("select(u.R, u.C, u.byColumn != 0u)", "element(i);", "placeInGrid(group)")}`,
    grid: ({ R = 0, C = 0, byColumn }) => elementwiseGrid(byColumn ? C : R),
    cost: ({ R = 0, C = 0 }) => ({ flops: 2 * R * C, bytes: storedBytes(format) * R * C }),
  });

const squaresKernels: Readonly<Record<WeightFormat, SquaresKernel>> = {
  f32: squaresKernel("f32"),
  f16: squaresKernel("f16"),
  bf16: squaresKernel("bf16"),
  nf4: squaresKernel("nf4"),
  int8: squaresKernel("int8"),
};

/**
 * squares[first + i] += the sum of squares of row i of weight [R, C] or, with `byColumn`, of its column i: a matrix is
 * walked window by window of its rows.
 */
export function rowSquares(format: WeightFormat): SquaresKernel {
  return squaresKernels[format];
}

/**
 * inverse[first + o] = 1 / n_o and gains[first + o] = m_o / n_o for o < O, from B [O, r], P = A W^T in the columns from
 * `projectedFrom` on of projected [r, P], G = A A^T [r, r], squares [W] of W's rows and m [O]. 0 where n_o is 0: a row
 * of zeros has no direction.
 */
export const doraGains = kernel({
  name: "doraGains",
  read: { b: "f32[O, r]", projected: "f32[r, P]", gram: "f32[r, r]", squares: "f32[W]", magnitude: "f32[O]" },
  write: { gains: "f32[W]", inverse: "f32[W]" },
  uniforms: { O: "u32", r: "u32", W: "u32", P: "u32", first: "u32", projectedFrom: "u32", scale: "f32" },
  wgsl: /* wgsl */ `
fn element(o: u32) {
  var added = 0.0;
  for (var i = 0u; i < u.r; i++) {
    var along = 0.0;
    for (var j = 0u; j < u.r; j++) { along += gram[i * u.r + j] * b[o * u.r + j]; }
    added += b[o * u.r + i] * (2.0 * projected[i * u.P + u.projectedFrom + o] + u.scale * along);
  }
  let norm = sqrt(max(0.0, squares[u.first + o] + u.scale * added));
  let reciprocal = select(0.0, 1.0 / norm, norm > 0.0);
  inverse[u.first + o] = reciprocal;
  gains[u.first + o] = magnitude[o] * reciprocal;
}
${elementwise("u.O")}`,
  grid: ({ O = 0 }) => elementwiseGrid(O),
  cost: ({ O = 0, r = 0 }) => ({ flops: 2 * O * r * r, bytes: 8 * O * r }),
});

/** y [T, W] <- gains [W] y, + bias [W] with `hasBias`, + residual [T, W] with `hasResidual`. y is an activation. */
export const scaleColumns = inFormats((format) =>
  kernel({
    name: "scaleColumns",
    read: { gains: "f32[W]", bias: "f32[B]", residual: "f32[S]" },
    write: { y: activationBinding(format, "T, W", false) },
    uniforms: { T: "u32", W: "u32", B: "u32", S: "u32", hasBias: "u32", hasResidual: "u32" },
    wgsl: /* wgsl */ `
fn element(row: u32, column: u32) {
  let i = row * u.W + column;
  var value = gains[column] * ${loadedActivation(format, "y[i]", false)};
  if (u.hasBias != 0u) { value += bias[column]; }
  if (u.hasResidual != 0u) { value += residual[i]; }
  y[i] = ${storedActivation(format, "value", false)};
}
${rowElements("u.T", "u.W")}`,
    grid: ({ T = 0, W = 0 }) => rowElementsGrid(T, W),
    cost: ({ T = 0, W = 0 }) => ({ flops: 3 * T * W, bytes: (4 + 2 * storedBytes(format)) * T * W }),
  }),
);

/**
 * y[t, yFrom + c] <- (gains[first + c] - shift) x[t, xFrom + c] for c < columns, added to y with `accumulate`. With a
 * shift of 1 it is what DoRA adds to a base result that stands there already. y is an activation, x is f32.
 */
export const scaledColumns = inFormats((format) =>
  kernel({
    name: "scaledColumns",
    read: { gains: "f32[G]", x: "f32[T, X]" },
    write: { y: activationBinding(format, "T, Y", false) },
    uniforms: {
      ...{ T: "u32", X: "u32", Y: "u32", G: "u32", columns: "u32" },
      ...{ first: "u32", xFrom: "u32", yFrom: "u32", shift: "f32", accumulate: "u32" },
    },
    wgsl: /* wgsl */ `
fn element(row: u32, column: u32) {
  let i = row * u.Y + u.yFrom + column;
  var value = (gains[u.first + column] - u.shift) * x[row * u.X + u.xFrom + column];
  if (u.accumulate != 0u) { value += ${loadedActivation(format, "y[i]", false)}; }
  y[i] = ${storedActivation(format, "value", false)};
}
${rowElements("u.T", "u.columns")}`,
    grid: ({ T = 0, columns = 0 }) => rowElementsGrid(T, columns),
    cost: ({ T = 0, columns = 0 }) => ({ flops: 3 * T * columns, bytes: (4 + 2 * storedBytes(format)) * T * columns }),
  }),
);

/**
 * partials [G, columns]: per block of rows the sum of inverse[first + c] dy[t, from + c] product[t, xFrom + c], the
 * gradient of the magnitude, where product is u = x V^T.
 */
export const magnitudePartials = kernel({
  name: "magnitudePartials",
  read: { inverse: "f32[W]", dy: "f32[T, W]", product: "f32[T, X]" },
  write: { partials: "f32[G, columns]" },
  uniforms: { T: "u32", W: "u32", X: "u32", G: "u32", columns: "u32", first: "u32", xFrom: "u32" },
  wgsl: /* wgsl */ `
fn element(block: u32, column: u32) {
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  var sum = 0.0;
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {
    sum += dy[row * u.W + u.first + column] * product[row * u.X + u.xFrom + column];
  }
  partials[block * u.columns + column] = inverse[u.first + column] * sum;
}
${rowElements("u.G", "u.columns")}`,
  grid: ({ G = 0, columns = 0 }) => rowElementsGrid(G, columns),
  cost: ({ T = 0, columns = 0 }) => ({ flops: 2 * T * columns, bytes: 8 * T * columns }),
});
