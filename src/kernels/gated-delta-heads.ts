/**
 * What is computed for each row before the recurrence of `gated-delta.ts`, and backward after it: the two gates of a
 * value head, and the lengths by which a key head's query and key are divided. A row has the projections a and b, and q
 * and k of K channels:
 *
 *   g = -exp(aLog) softplus(a + dtBias),   beta = sigmoid(b),   khat = k / sqrt(k . k + 1e-6),
 *   qhat = q / sqrt(q . q + 1e-6) / sqrt(K)
 *
 * The forward kernel writes four factors for a value head, (exp(g), beta, khat / k, qhat / q), so that q and k divided
 * by their lengths need not be stored.
 *
 * In the backward kernel the sums go over the value heads of a key head, and x . x includes the 1e-6:
 *
 *   dq = (qhat / q) sum dqhat - (q / q . q) sum qhat . dqhat,   dk = (khat / k) sum dkhat - (k / k . k) sum khat . dkhat
 *   dg = dg' + qhat . dqhat - dv . v   (dg': of the rows that follow),   da = dg (-exp(aLog)) sigmoid(a + dtBias)
 *   db = dbeta beta (1 - beta) = (1 - beta) dv . delta,   daLog = sum dg g,   ddtBias = sum da      over rows
 *
 * dg is sum(dS' S') by its definition. With D, the gradient of the state behind a row, that is also sum(D S) of the row
 * before; from one row to the next the row's own terms change it, dOut . out = qhat . dqhat and those of dv. So neither
 * matrix is needed. Of a head that forgets all at once, whose dg is nothing, rounding leaves about 1e-7 of these terms.
 */
import { BRANCH_OF, flagged, SEGMENT_WORDS } from "./gated-delta-segments.ts";
import { inFormats, kernel } from "./kernel.ts";
import { activationBinding, storedBytes } from "./stored.ts";
import { type AdapterFacts, inVectors, linearGrid, linearGroup, memoized, reduction, sigmoid } from "./wgsl.ts";

/** Added to the sums of squares of queries and keys, as published. */
const L2_EPSILON = 1e-6;

/**
 * WGSL: softplus(x) = log(1 + exp(x)). log(1 + y) is 2 artanh(y / (2 + y)), whose series ends where f32 does: WGSL's
 * log may be off by 2^-21 near 1, which is much where little is forgotten.
 */
const softplus = /* wgsl */ `
fn softplus(x: f32) -> f32 {
  let y = exp(-abs(x));
  let s = y / (2.0 + y);
  let p = s * s;
  let series = 1.0 + p * (1.0 / 3.0 + p * (1.0 / 5.0 + p * (1.0 / 7.0 + p * (1.0 / 9.0 + p * (1.0 / 11.0 + p / 13.0)))));
  return max(x, 0.0) + 2.0 * s * series;
}
`;

/** One workgroup for each key head of a row; `row`, `head`, `size` in elements, `query`, `key` (first elements), `lane`. */
function headKernel(facts: AdapterFacts, functions: string, body: string): { enable: readonly string[]; wgsl: string } {
  const reduce = reduction(facts);
  return {
    enable: reduce.enable,
    wgsl: /* wgsl */ `${functions}${linearGroup}${reduce.wgsl}
@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = linearGroup(group);
  if (index >= u.T * u.keyHeads) { return; }
  let row = index / u.keyHeads;
  let head = index - row * u.keyHeads;
  let repeats = u.heads / u.keyHeads;
  let size = u.keySize / LANES;
  let query = row * (u.W / LANES) + head * size;
  let key = query + u.keyHeads * size;
${body}
}`,
  };
}

/**
 * qkv [T, W], gates [T, G] with a in the columns from `aFrom` on and b from `bFrom` on, aLog and dtBias [heads] ->
 * factors [T, heads, 4] = (exp(g), beta, khat / k, qhat / q).
 */
export const deltaFactors = memoized((facts) =>
  inFormats((format) =>
    inVectors(
      ({ W, keySize }) => [W, keySize],
      (lanes) =>
        kernel({
          name: "deltaFactors",
          read: {
            qkv: lanes.activations("T, W"),
            gates: activationBinding(format, "T, G", false),
            aLog: "f32[heads]",
            dtBias: "f32[heads]",
          },
          write: { factors: "f32[T, 4*heads] as vec4f" },
          uniforms: {
            ...{
              T: "u32",
              W: "u32",
              G: "u32",
              heads: "u32",
              keyHeads: "u32",
              keySize: "u32",
              aFrom: "u32",
              bFrom: "u32",
            },
          },
          ...headKernel(
            facts,
            `${lanes.wgsl}${sigmoid("f32")}${softplus}`,
            /* wgsl */ `
  var queries = E();
  var keys = E();
  for (var d = lane; d < size; d += GROUP) {
    let q = E(qkv[query + d]);
    let k = E(qkv[key + d]);
    queries += q * q;
    keys += k * k;
  }
  let queryFactor = inverseSqrt((reduceSum(total(queries), lane) + ${L2_EPSILON}) * f32(u.keySize));
  let keyFactor = inverseSqrt(reduceSum(total(keys), lane) + ${L2_EPSILON});
  for (var repeat = lane; repeat < repeats; repeat += GROUP) {
    let own = head * repeats + repeat;
    let a = f32(gates[row * u.G + u.aFrom + own]);
    let b = f32(gates[row * u.G + u.bFrom + own]);
    let decay = exp(-exp(aLog[own]) * softplus(a + dtBias[own]));
    factors[row * u.heads + own] = vec4f(decay, sigmoid(b), keyFactor, queryFactor);
  }`,
          ),
          grid: ({ T = 0, keyHeads = 0 }) => linearGrid(T * keyHeads),
          cost: ({ T = 0, heads = 0, keyHeads = 0, keySize = 0 }) => ({
            flops: 4 * T * keyHeads * keySize,
            bytes: T * (2 * storedBytes(format) * (keyHeads * keySize + heads) + 16 * heads),
          }),
        }),
      format,
    ),
  ),
);

/**
 * dHeads [T, 2, heads, K], deltas [T, heads V] and the values' columns of dQkv -> its queries' and keys' columns, and
 * terms [T, heads, 2] = (qhat . dqhat - dv . v, dv . delta) for `deltaBackwardGates`.
 */
export const deltaBackwardHeads = memoized((facts) =>
  inFormats((format) =>
    inVectors(
      ({ W, keySize, valueSize }) => [W, keySize, valueSize],
      (lanes) =>
        kernel({
          name: "deltaBackwardHeads",
          read: {
            qkv: lanes.activations("T, W"),
            factors: "f32[T, 4*heads] as vec4f",
            dHeads: `f32[T, 2*heads*keySize]${lanes.view}`,
            deltas: `f32[T, heads*valueSize]${lanes.view}`,
          },
          write: { dQkv: `f32[T, W]${lanes.view}`, terms: "f32[T, 2*heads] as vec2f" },
          uniforms: { T: "u32", W: "u32", heads: "u32", keyHeads: "u32", keySize: "u32", valueSize: "u32" },
          ...headKernel(
            facts,
            lanes.wgsl,
            /* wgsl */ `
  let values = u.valueSize / LANES;
  let factor = factors[row * u.heads + head * repeats];
  var queryAlong = 0.0;
  var keyAlong = E();
  for (var repeat = 0u; repeat < repeats; repeat++) {
    let own = head * repeats + repeat;
    let dQuery = (2u * row * u.heads + own) * size;
    let dKey = dQuery + u.heads * size;
    var along = E();
    for (var d = lane; d < size; d += GROUP) {
      along += E(qkv[query + d]) * dHeads[dQuery + d];
      keyAlong += E(qkv[key + d]) * dHeads[dKey + d];
    }
    let value = row * (u.W / LANES) + 2u * u.keyHeads * size + own * values;
    let delta = (row * u.heads + own) * values;
    var read = E();
    var written = E();
    for (var d = lane; d < values; d += GROUP) {
      read += dQkv[value + d] * E(qkv[value + d]);
      written += dQkv[value + d] * deltas[delta + d];
    }
    let ofQuery = factor.w * reduceSum(total(along), lane);
    let ofValue = reduceSum(total(read), lane);
    let ofDelta = reduceSum(total(written), lane);
    queryAlong += ofQuery;
    if (lane == 0u) { terms[row * u.heads + own] = vec2f(ofQuery - ofValue, ofDelta); }
  }
  // (qhat / q)^2 has the 1 / K of the queries' scale in it.
  let queryPull = factor.w * factor.w * f32(u.keySize) * queryAlong;
  let keyPull = factor.z * factor.z * factor.z * reduceSum(total(keyAlong), lane);
  for (var d = lane; d < size; d += GROUP) {
    var dQuery = E();
    var dKey = E();
    for (var repeat = 0u; repeat < repeats; repeat++) {
      let own = (2u * row * u.heads + head * repeats + repeat) * size + d;
      dQuery += dHeads[own];
      dKey += dHeads[own + u.heads * size];
    }
    dQkv[query + d] = factor.w * dQuery - queryPull * E(qkv[query + d]);
    dQkv[key + d] = factor.z * dKey - keyPull * E(qkv[key + d]);
  }`,
          ),
          grid: ({ T = 0, keyHeads = 0 }) => linearGrid(T * keyHeads),
          cost: ({ T = 0, heads = 0, keySize = 0, valueSize = 0 }) => ({
            flops: T * heads * (6 * keySize + 4 * valueSize),
            bytes: T * heads * (8 * keySize + (8 + storedBytes(format)) * valueSize),
          }),
        }),
      format,
    ),
  ),
);

/** Heads of a workgroup of `deltaBackwardGates`. */
const HEADS = 32;

/**
 * From the last row to the first, over segments as the recurrence's: terms [T, heads, 2] -> a's and b's columns of
 * dGates [T, G], and aLogTerms [T, heads], whose sum over rows is the gradient of aLog; that of dtBias is a's columns'.
 * carries [slots `branches`, heads] are to dg what dStates are to D.
 */
export const deltaBackwardGates = inFormats((format) =>
  kernel({
    name: "deltaBackwardGates",
    read: {
      gates: activationBinding(format, "T, G", false),
      aLog: "f32[heads]",
      dtBias: "f32[heads]",
      terms: "f32[T, 2*heads] as vec2f",
      segments: `u32[N, ${SEGMENT_WORDS}] as vec4u`,
    },
    write: { dGates: "f32[T, G]", aLogTerms: "f32[T, heads]", carries: "f32[places, heads]" },
    uniforms: {
      ...{ T: "u32", G: "u32", heads: "u32", aFrom: "u32", bFrom: "u32", first: "u32", count: "u32", branches: "u32" },
    },
    wgsl: /* wgsl */ `${sigmoid("f32")}${softplus}
@compute @workgroup_size(${HEADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.x * ${HEADS}u + lane;
  if (head >= u.heads) { return; }
  let segment = segments[u.first + group.y];
  let rate = -exp(aLog[head]);
  var dDecay = 0.0;
  if (${flagged("KEEPS")}) {
    for (var branch = 0u; branch < u.branches; branch++) {
      dDecay += carries[(segment.z * u.branches + branch) * u.heads + head];
    }
  }
  let continues = ${flagged("CONTINUES")};
  for (var after = segment.y; after > segment.x; after--) {
    let t = after - 1u;
    let term = terms[t * u.heads + head];
    // The first row of a sequence forgets nothing.
    dDecay = select(0.0, dDecay + term.x, continues || t > segment.x);
    let a = f32(gates[t * u.G + u.aFrom + head]) + dtBias[head];
    let b = f32(gates[t * u.G + u.bFrom + head]);
    dGates[t * u.G + u.aFrom + head] = dDecay * rate * sigmoid(a);
    dGates[t * u.G + u.bFrom + head] = term.y * sigmoid(-b);
    aLogTerms[t * u.heads + head] = dDecay * rate * softplus(a);
  }
  if (continues) { carries[(segment.z * u.branches + ${BRANCH_OF}) * u.heads + head] = dDecay; }
}`,
    grid: ({ heads = 0, count = 0 }) => [Math.ceil(heads / HEADS), count],
    cost: ({ T = 0, heads = 0 }) => ({ flops: 40 * T * heads, bytes: T * heads * (20 + 2 * storedBytes(format)) }),
  }),
);
