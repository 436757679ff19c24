/**
 * Causal convolution of each channel with its own K taps (depthwise): alone, with silu behind it, as before DeltaNet, or
 * between two gates, as LFM2's operator.
 *
 *   u = x, gated u = B y          x [T, W]: its first C columns, gated the columns [B | G | y] with W = 3 C
 *   z[t] = bias + sum_{j<K} weight[K-1-j] u[s_j]      s_0 = t, s_1, s_2 ...: the rows before it in its sequence
 *   out = z, silu(z), gated G z
 *
 * Rows that continue a prompt that lies elsewhere read its end: of the ranges that attention has, row t reads back to
 * branchStart and then on from prefixEnd - 1; a row at position p has p rows before it, and zeros before these. In
 * generation the rows before a pass are not there: their u, the last K - 1 of each sequence, are its state.
 *
 * Backward serves rows without a prefix: dz from dOut in place, then by each row
 *   du[s] = sum_{j<K} weight[K-1-j] dz[s + j],  s + j below the end of the sequence,   dWeight[K-1-j] = sum dz[t] u[s_j].
 */
import { type Kernel, kernel, type Values } from "./kernel.ts";
import { type Lanes, ofActivations, range, rowElements, rowElementsGrid, sigmoid } from "./wgsl.ts";

/** What the texts depend on. */
export interface ShortConvolution {
  /** K, at least 2. */
  readonly taps: number;
  /** What becomes of the convolution's result: nothing, silu of it, or its product with a gate, as its input is one. */
  readonly around: "nothing" | "silu" | "gates";
}

/** Rows that an invocation computes one after another, with taps that it reads once. */
const ROWS = 8;

/** One kernel for each convolution, of activations in any format. */
function byConvolution<B extends string, U extends string>(
  build: (convolution: ShortConvolution, lanes: Lanes) => Kernel<B, U>,
): (convolution: ShortConvolution) => Kernel<B, U> {
  const built = new Map<string, Kernel<B, U>>();
  return ({ taps, around }) => {
    const key = `${taps} ${around}`;
    const widths = ({ C, W }: Values) => [C, W];
    const found = built.get(key) ?? ofActivations(widths, (lanes) => build({ taps, around }, lanes));
    built.set(key, found);
    return found;
  };
}

/** WGSL: `input(row, c)`, which is u, and with gates `part(row, number, c)`, a column of B, G or y. */
const inputs = ({ around }: ShortConvolution) =>
  around === "gates"
    ? /* wgsl */ `
fn part(row: u32, number: u32, c: u32) -> E { return E(x[row * (u.W / LANES) + number * (u.C / LANES) + c]); }
fn input(row: u32, c: u32) -> E { return part(row, 0u, c) * part(row, 2u, c); }`
    : /* wgsl */ `
fn input(row: u32, c: u32) -> E { return E(x[row * (u.W / LANES) + c]); }`;

/** WGSL: `tap0`, `tap1` and so on, the weights of column c for the row itself and for those before it. */
function tapsOf(taps: number, { count }: Lanes): string {
  const weight = (channel: string, j: number) => `weight[(${channel}) * ${taps}u + ${taps - 1 - j}u]`;
  const weights = (j: number) => (count === 1 ? [weight("c", j)] : range(4).map((i) => weight(`4u * c + ${i}u`, j)));
  return range(taps)
    .map((j) => `let tap${j} = E(${weights(j).join(", ")});`)
    .join("\n");
}

/** WGSL: where rows before `row` lie: so many in its branch, the others before the end of its prefix. */
const PLACES = /* wgsl */ `
    let prefixEnd = ranges[row].y;
    let inBranch = row - ranges[row].z;
    let position = positions[row] & 0x7fffffffu;`;

/** WGSL: for each j from 1 on, a statement about the row j before `row`, where there is one; `at` is its place. */
const eachBefore = (taps: number, inBranch: (j: number, at: string) => string, inPrefix = inBranch) =>
  range(taps)
    .slice(1)
    .map(
      (j) => /* wgsl */ `
    if (inBranch >= ${j}u) { ${inBranch(j, `row - ${j}u`)} }
    else if (position >= ${j}u) { ${inPrefix(j, `prefixEnd + inBranch - ${j}u`)} }`,
    )
    .join("");

/** WGSL: `z` of column c at `row`. @param before u of a row of the prefix at this place; default `input`'s */
const convolved = (taps: number, before = (place: string) => `input(${place}, c)`) => /* wgsl */ `${PLACES}
    var z = tap0 * input(row, c);
    if (u.hasBias != 0u) { z += bias[c]; }
    ${eachBefore(
      taps,
      (j, at) => `z += tap${j} * input(${at}, c);`,
      (j, at) => `z += tap${j} * ${before(at)};`,
    )}`;

/** WGSL: a statement for each row of a block of them, and the entry point. */
const eachRow = (statement: string) => /* wgsl */ `
  for (var row = block * ${ROWS}u; row < min((block + 1u) * ${ROWS}u, u.T); row++) {${statement}
  }`;
const blocksOfRows = rowElements(`(u.T + ${ROWS - 1}u) / ${ROWS}u`, "u.C / LANES");
const blocksGrid =
  ({ count }: Lanes) =>
  ({ T = 0, C = 0 }: Values) =>
    rowElementsGrid(Math.ceil(T / ROWS), C / count);

const UNIFORMS = { T: "u32", C: "u32", W: "u32" } as const;

/** What the convolution's result is computed of. */
const operands = (taps: number, lanes: Lanes) => ({
  x: lanes.activations("T, W"),
  weight: `f32[C*${taps}]`,
  bias: `f32[biases]${lanes.view}`,
  ranges: "u32[T, 4] as vec4u",
  positions: "u32[T]",
});

/** Columns that are read of a row of x. */
const columnsOf = ({ around }: ShortConvolution, C: number) => (around === "gates" ? 3 * C : C);

/** WGSL: what of z at `row` is the result. */
const RESULTS = {
  nothing: "z",
  silu: "z * sigmoid(z)",
  gates: "part(row, 1u, c) * z",
} as const;

/** What is the same of both forward kernels. @param before u of a row of the prefix at this place */
const forward = (convolution: ShortConvolution, lanes: Lanes, before?: (place: string) => string) => ({
  write: { out: lanes.activations("T, C") },
  wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}${inputs(convolution)}
fn element(block: u32, c: u32) {
  ${tapsOf(convolution.taps, lanes)}
  ${eachRow(`${convolved(convolution.taps, before)}
    out[row * (u.C / LANES) + c] = A(${RESULTS[convolution.around]});`)}
}
${blocksOfRows}`,
  grid: blocksGrid(lanes),
  cost: ({ T = 0, C = 0 }: Values) => ({
    flops: (2 * convolution.taps + 2) * T * C,
    bytes: lanes.activationBytes * T * (columnsOf(convolution, C) + C),
  }),
});

/**
 * x [T, W], weight [C K], bias [C] where `hasBias` is 1, ranges [T, 4] and positions [T] of the rows -> out [T, C].
 */
export const shortConvolutionForward = byConvolution((convolution, lanes) =>
  kernel({
    name: "shortConvolutionForward",
    read: operands(convolution.taps, lanes),
    uniforms: { ...UNIFORMS, hasBias: "u32" },
    ...forward(convolution, lanes),
  }),
);

/**
 * The convolution's forward pass in generation: the rows before the first one of a sequence in this pass are in state
 * [S, C], which holds their u. ranges [T, 4] has each row's place after the last of them, and its sequence's first row in the pass.
 */
export const shortConvolutionFromState = byConvolution((convolution, lanes) =>
  kernel({
    name: "shortConvolutionFromState",
    read: { ...operands(convolution.taps, lanes), state: `f32[S, C]${lanes.view}` },
    uniforms: { ...UNIFORMS, S: "u32", hasBias: "u32" },
    ...forward(convolution, lanes, (place) => `state[(${place}) * (u.C / LANES) + c]`),
  }),
);

/**
 * What the next pass finds of this one: state [slots (K - 1), C] gets the u of the last K - 1 rows of each sequence,
 * oldest first. segments [N, 4]: the first row of a sequence in the pass, the one after its last, and its slot; none
 * where the first two are the same.
 */
export const shortConvolutionState = byConvolution((convolution, lanes) => {
  const kept = convolution.taps - 1;
  return kernel({
    name: "shortConvolutionState",
    read: { x: lanes.activations("T, W"), segments: "u32[N, 4] as vec4u" },
    write: { state: `f32[slots*${kept}, C]${lanes.view}` },
    uniforms: { ...UNIFORMS, N: "u32" },
    wgsl: /* wgsl */ `${lanes.wgsl}${inputs(convolution)}
fn element(segment: u32, c: u32) {
  let first = segments[segment].x;
  let count = segments[segment].y - first;
  let slot = segments[segment].z;
  if (count == 0u) { return; }
  // Of the kept rows with those of the pass behind them, the last ones: each lies further on than where it goes.
  for (var i = 0u; i < ${kept}u; i++) {
    let source = i + count;
    var value = E();
    if (source < ${kept}u) { value = state[(slot * ${kept}u + source) * (u.C / LANES) + c]; }
    else { value = input(first + source - ${kept}u, c); }
    state[(slot * ${kept}u + i) * (u.C / LANES) + c] = value;
  }
}
${rowElements("u.N", "u.C / LANES")}`,
    grid: ({ N = 0, C = 0 }) => rowElementsGrid(N, C / lanes.count),
    cost: ({ N = 0, C = 0 }) => ({ flops: 0, bytes: 8 * kept * N * C }),
  });
});

/** WGSL: what `dOut` at i becomes, which is dz, and with gates dG. */
const OUTPUT_GRADIENTS = {
  nothing: "",
  silu: /* wgsl */ `
    let s = sigmoid(z);
    dOut[i] *= s * (1.0 + z * (1.0 - s));`,
  gates: /* wgsl */ `
    dx[row * (u.W / LANES) + u.C / LANES + c] = dOut[i] * z;
    dOut[i] *= part(row, 1u, c);`,
} as const;

/** dOut [T, C] -> dz, in place, and with gates the columns of G of dx [T, W]. Not for a convolution alone: dz = dOut. */
export const shortConvolutionBackwardOutput = byConvolution((convolution, lanes) =>
  kernel({
    name: "shortConvolutionBackwardOutput",
    read: operands(convolution.taps, lanes),
    write: { dOut: `f32[T, C]${lanes.view}`, dx: `f32[T, W]${lanes.view}` },
    uniforms: { ...UNIFORMS, hasBias: "u32" },
    wgsl: /* wgsl */ `${lanes.wgsl}${sigmoid("E")}${inputs(convolution)}
fn element(block: u32, c: u32) {
  ${tapsOf(convolution.taps, lanes)}
  ${eachRow(`${convolved(convolution.taps)}
    let i = row * (u.C / LANES) + c;${OUTPUT_GRADIENTS[convolution.around]}`)}
}
${blocksOfRows}`,
    grid: blocksGrid(lanes),
    cost: ({ T = 0, C = 0 }) => ({
      flops: (2 * convolution.taps + 6) * T * C,
      bytes: T * (lanes.activationBytes * columnsOf(convolution, C) + 8 * C),
    }),
  }),
);

/** dz [T, C], queryEnd [T] (the row after the last of each row's sequence) -> the columns of u of dx [T, W]. */
export const shortConvolutionBackwardInput = byConvolution((convolution, lanes) =>
  kernel({
    name: "shortConvolutionBackwardInput",
    read: {
      dz: `f32[T, C]${lanes.view}`,
      x: lanes.activations("T, W"),
      weight: `f32[C*${convolution.taps}]`,
      queryEnd: "u32[T]",
    },
    write: { dx: `f32[T, W]${lanes.view}` },
    uniforms: UNIFORMS,
    wgsl: /* wgsl */ `${lanes.wgsl}${inputs(convolution)}
fn element(block: u32, c: u32) {
  ${tapsOf(convolution.taps, lanes)}
  let width = u.C / LANES;
  ${eachRow(`
    let i = row * width + c;
    let end = queryEnd[row];
    var du = tap0 * dz[i];
    ${range(convolution.taps)
      .slice(1)
      .map((j) => `if (row + ${j}u < end) { du += tap${j} * dz[i + ${j}u * width]; }`)
      .join("\n")}
    let first = row * (u.W / LANES) + c;
    ${
      convolution.around === "gates"
        ? `dx[first] = du * part(row, 2u, c);
    dx[first + 2u * width] = du * part(row, 0u, c);`
        : "dx[first] = du;"
    }`)}
}
${blocksOfRows}`,
    grid: blocksGrid(lanes),
    cost: ({ T = 0, C = 0 }) => ({
      flops: (2 * convolution.taps + 2) * T * C,
      bytes: T * (lanes.activationBytes * columnsOf(convolution, C) + 8 * C),
    }),
  }),
);

/** partials [G, C K]: per block of rows the sum of dz[t] u[s_j], the gradient of the weight; of the bias it is dz's sum. */
export const shortConvolutionWeightPartials = byConvolution(({ taps, around }, lanes) =>
  kernel({
    name: "shortConvolutionWeightPartials",
    read: {
      dz: `f32[T, C]${lanes.view}`,
      x: lanes.activations("T, W"),
      ranges: "u32[T, 4] as vec4u",
      positions: "u32[T]",
    },
    write: { partials: `f32[G, C*${taps}]` },
    uniforms: { ...UNIFORMS, G: "u32" },
    wgsl: /* wgsl */ `${lanes.wgsl}${inputs({ taps, around })}
fn element(block: u32, c: u32) {
  let rowsPerBlock = (u.T + u.G - 1u) / u.G;
  let first = block * rowsPerBlock;
  ${range(taps)
    .map((j) => `var sum${j} = E();`)
    .join("\n")}
  for (var row = first; row < min(first + rowsPerBlock, u.T); row++) {${PLACES}
    let own = dz[row * (u.C / LANES) + c];
    sum0 += own * input(row, c);
    ${eachBefore(taps, (j, at) => `sum${j} += own * input(${at}, c);`)}
  }
  let at = block * u.C * ${taps}u + LANES * c * ${taps}u;
  ${range(taps)
    .flatMap((j) =>
      lanes.count === 1
        ? [`partials[at + ${taps - 1 - j}u] = sum${j};`]
        : range(4).map((i) => `partials[at + ${i * taps + taps - 1 - j}u] = sum${j}[${i}];`),
    )
    .join("\n")}
}
${rowElements("u.G", "u.C / LANES")}`,
    grid: ({ G = 0, C = 0 }) => rowElementsGrid(G, C / lanes.count),
    cost: ({ T = 0, C = 0 }) => ({
      flops: 2 * taps * T * C,
      bytes: T * (lanes.activationBytes * columnsOf({ taps, around }, C) + 4 * C),
    }),
  }),
);
