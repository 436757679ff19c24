/**
 * Scaled dot-product attention over two key ranges per row, with grouped-query heads.
 *
 *   out[t, h] = sum_j softmax_j(q[t, h] . k[j, g] / sqrt(D)) v[j, g],   g = h KV / H
 *
 * Row t sees the keys [prefixStart, prefixEnd) and [branchStart, branchEnd): the prompt that it continues and its own
 * branch (or, with an empty prefix, simply its own sequence up to itself). Forward keeps the log-sum-exp of each row
 * and head, so backward recomputes the probabilities (FlashAttention, Dao et al. 2022): nothing of size T x T exists.
 * Backward is two kernels without atomics: dQ by query row, dK and dV by key row. It serves rows without a prefix,
 * the only ones that carry gradients: key row j is seen by the query rows [j, queryEnd[j]).
 *
 * q, k and v may be column ranges of wider rows (fused projections, caches): widths come from the shapes, first
 * columns are uniforms.
 */
import { kernel } from "./kernel.ts";
import { elementwise, elementwiseGrid } from "./wgsl.ts";

/** Head-size-dependent text: a head row is `SIZE` elements of type `E`, vectors where the size allows them. */
function headCode(headSize: number): { view: string; code: string } {
  const vector = headSize % 4 === 0;
  const lanes = vector ? 4 : 1;
  return {
    view: vector ? " as vec4f" : "",
    code: /* wgsl */ `
alias E = ${vector ? "vec4f" : "f32"};
const LANES: u32 = ${lanes}u;
const SIZE: u32 = ${headSize / lanes}u;
const SCALE: f32 = ${1 / Math.sqrt(headSize)};
const LOWEST: f32 = -3.0e38;
fn total(x: E) -> f32 { return ${vector ? "x.x + x.y + x.z + x.w" : "x"}; }
`,
  };
}

/** Widths and first columns must be multiples of 4 where the head size is; ours are, being whole heads. */
const OFFSETS = { qFrom: "u32", kFrom: "u32", vFrom: "u32" } as const;

function memoized<T>(build: (headSize: number) => T): (headSize: number) => T {
  const cache = new Map<number, T>();
  return (headSize) => {
    let found = cache.get(headSize);
    if (found === undefined) {
      found = build(headSize);
      cache.set(headSize, found);
    }
    return found;
  };
}

/** q [T, qWidth], k [S, kWidth], v [S, vWidth], ranges [T, 4] -> out [T, H D], logSumExp [T, H]. */
export const attentionForward = memoized((headSize) => {
  const { view, code } = headCode(headSize);
  return kernel({
    name: "attentionForward",
    read: {
      q: `f32[T, qWidth]${view}`,
      k: `f32[S, kWidth]${view}`,
      v: `f32[S, vWidth]${view}`,
      ranges: "u32[T, 4] as vec4u",
    },
    write: { out: `f32[T, H*${headSize}]${view}`, logSumExp: "f32[T, H]" },
    uniforms: {
      T: "u32",
      S: "u32",
      H: "u32",
      groupSize: "u32",
      qWidth: "u32",
      kWidth: "u32",
      vWidth: "u32",
      ...OFFSETS,
    },
    wgsl: /* wgsl */ `${code}
// Where a key or value row starts; past the end of a range the last one, whose score is then masked.
fn keyAt(key: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.kWidth + u.kFrom) / LANES; }
fn valueAt(key: u32, end: u32) -> u32 { return (min(key, end - 1u) * u.vWidth + u.vFrom) / LANES; }
fn element(i: u32) {
  // Neighbouring invocations are neighbouring rows of one head: they meet the same keys at the same time.
  let head = i / u.T;
  let row = i % u.T;
  let kvHead = head / u.groupSize;
  var query: array<E, SIZE>;
  var sum: array<E, SIZE>;
  let qAt = (row * u.qWidth + u.qFrom) / LANES + head * SIZE;
  for (var d = 0u; d < SIZE; d++) {
    query[d] = q[qAt + d] * SCALE;
    sum[d] = E();
  }
  var highest = LOWEST;
  var weight = 0.0;
  let seen = ranges[row];
  for (var part = 0u; part < 2u; part++) {
    let start = select(seen.x, seen.z, part == 1u);
    let end = select(seen.y, seen.w, part == 1u);
    for (var key = start; key < end; key += 4u) {
      // Four keys at a time share one rescaling of the running sums. They are named, not indexed: an index into
      // private memory costs more than the arithmetic.
      let k0 = keyAt(key, end) + kvHead * SIZE;
      let k1 = keyAt(key + 1u, end) + kvHead * SIZE;
      let k2 = keyAt(key + 2u, end) + kvHead * SIZE;
      let k3 = keyAt(key + 3u, end) + kvHead * SIZE;
      var s0 = E();
      var s1 = E();
      var s2 = E();
      var s3 = E();
      for (var d = 0u; d < SIZE; d++) {
        let part = query[d];
        s0 += part * k[k0 + d];
        s1 += part * k[k1 + d];
        s2 += part * k[k2 + d];
        s3 += part * k[k3 + d];
      }
      let exists = vec4u(key, key + 1u, key + 2u, key + 3u) < vec4u(end);
      let score = select(vec4f(LOWEST), vec4f(total(s0), total(s1), total(s2), total(s3)), exists);
      let next = max(highest, max(max(score.x, score.y), max(score.z, score.w)));
      let shrink = exp(highest - next);
      let p = exp(score - next);
      weight = weight * shrink + p.x + p.y + p.z + p.w;
      let v0 = valueAt(key, end) + kvHead * SIZE;
      let v1 = valueAt(key + 1u, end) + kvHead * SIZE;
      let v2 = valueAt(key + 2u, end) + kvHead * SIZE;
      let v3 = valueAt(key + 3u, end) + kvHead * SIZE;
      for (var d = 0u; d < SIZE; d++) {
        sum[d] = sum[d] * shrink + p.x * v[v0 + d] + p.y * v[v1 + d] + p.z * v[v2 + d] + p.w * v[v3 + d];
      }
      highest = next;
    }
  }
  let inverse = select(0.0, 1.0 / weight, weight > 0.0);
  let outAt = (row * u.H + head) * SIZE;
  for (var d = 0u; d < SIZE; d++) { out[outAt + d] = sum[d] * inverse; }
  logSumExp[row * u.H + head] = highest + log(max(weight, 1e-37));
}
${elementwise("u.T * u.H")}`,
    grid: ({ T = 0, H = 0 }) => elementwiseGrid(T * H),
    // Which keys a row sees is data; a causal row sees half of a sequence, whose length is not known here.
    cost: ({ T = 0, H = 0 }) => ({ flops: 4 * T * H * headSize * 64, bytes: 16 * T * H * headSize }),
  });
});

/** -> dq (columns of dFused), delta [T, H] = dOut . out, which the other half of the backward pass needs. */
export const attentionBackwardQuery = memoized((headSize) => {
  const { view, code } = headCode(headSize);
  return kernel({
    name: "attentionBackwardQuery",
    read: {
      fused: `f32[T, width]${view}`,
      out: `f32[T, H*${headSize}]${view}`,
      dOut: `f32[T, H*${headSize}]${view}`,
      logSumExp: "f32[T, H]",
      ranges: "u32[T, 4] as vec4u",
    },
    write: { dFused: `f32[T, width]${view}`, delta: "f32[T, H]" },
    uniforms: { T: "u32", H: "u32", groupSize: "u32", width: "u32", ...OFFSETS },
    wgsl: /* wgsl */ `${code}
fn element(i: u32) {
  let head = i / u.T;
  let row = i % u.T;
  let kvHead = head / u.groupSize;
  var query: array<E, SIZE>;
  var gradient: array<E, SIZE>;
  var sum: array<E, SIZE>;
  let qAt = (row * u.width + u.qFrom) / LANES + head * SIZE;
  let outAt = (row * u.H + head) * SIZE;
  var product = E();
  for (var d = 0u; d < SIZE; d++) {
    query[d] = fused[qAt + d] * SCALE;
    gradient[d] = dOut[outAt + d];
    product += gradient[d] * out[outAt + d];
    sum[d] = E();
  }
  let rowDelta = total(product);
  delta[row * u.H + head] = rowDelta;
  let normalizer = logSumExp[row * u.H + head];
  let seen = ranges[row];
  for (var key = seen.z; key < seen.w; key++) {
    let kAt = (key * u.width + u.kFrom) / LANES + kvHead * SIZE;
    let vAt = (key * u.width + u.vFrom) / LANES + kvHead * SIZE;
    var score = E();
    var along = E();
    for (var d = 0u; d < SIZE; d++) {
      score += query[d] * fused[kAt + d];
      along += gradient[d] * fused[vAt + d];
    }
    let dScore = exp(total(score) - normalizer) * (total(along) - rowDelta) * SCALE;
    for (var d = 0u; d < SIZE; d++) { sum[d] += dScore * fused[kAt + d]; }
  }
  for (var d = 0u; d < SIZE; d++) { dFused[qAt + d] = sum[d]; }
}
${elementwise("u.T * u.H")}`,
    grid: ({ T = 0, H = 0 }) => elementwiseGrid(T * H),
    cost: ({ T = 0, H = 0 }) => ({ flops: 6 * T * H * headSize * 64, bytes: 20 * T * H * headSize }),
  });
});

/** -> dk and dv (columns of dFused); each key row gathers from the query rows and heads that saw it. */
export const attentionBackwardKeyValue = memoized((headSize) => {
  const { view, code } = headCode(headSize);
  return kernel({
    name: "attentionBackwardKeyValue",
    read: {
      fused: `f32[T, width]${view}`,
      dOut: `f32[T, H*${headSize}]${view}`,
      logSumExp: "f32[T, H]",
      delta: "f32[T, H]",
      queryEnd: "u32[T]",
    },
    write: { dFused: `f32[T, width]${view}` },
    uniforms: { T: "u32", H: "u32", groupSize: "u32", width: "u32", ...OFFSETS },
    wgsl: /* wgsl */ `${code}
fn element(i: u32) {
  let kvHead = i / u.T;
  let row = i % u.T;
  var key: array<E, SIZE>;
  var value: array<E, SIZE>;
  var dKey: array<E, SIZE>;
  var dValue: array<E, SIZE>;
  let kAt = (row * u.width + u.kFrom) / LANES + kvHead * SIZE;
  let vAt = (row * u.width + u.vFrom) / LANES + kvHead * SIZE;
  for (var d = 0u; d < SIZE; d++) {
    key[d] = fused[kAt + d] * SCALE;
    value[d] = fused[vAt + d];
    dKey[d] = E();
    dValue[d] = E();
  }
  let end = queryEnd[row];
  for (var head = kvHead * u.groupSize; head < (kvHead + 1u) * u.groupSize; head++) {
    for (var query = row; query < end; query++) {
      let qAt = (query * u.width + u.qFrom) / LANES + head * SIZE;
      let outAt = (query * u.H + head) * SIZE;
      var score = E();
      var along = E();
      for (var d = 0u; d < SIZE; d++) {
        score += key[d] * fused[qAt + d];
        along += value[d] * dOut[outAt + d];
      }
      let p = exp(total(score) - logSumExp[query * u.H + head]);
      let dScore = p * (total(along) - delta[query * u.H + head]) * SCALE;
      for (var d = 0u; d < SIZE; d++) {
        dKey[d] += dScore * fused[qAt + d];
        dValue[d] += p * dOut[outAt + d];
      }
    }
  }
  for (var d = 0u; d < SIZE; d++) {
    dFused[kAt + d] = dKey[d];
    dFused[vAt + d] = dValue[d];
  }
}
${elementwise("u.T * (u.H / u.groupSize)")}`,
    grid: ({ T = 0, H = 0, groupSize = 1 }) => elementwiseGrid((T * H) / groupSize),
    cost: ({ T = 0, H = 0 }) => ({ flops: 8 * T * H * headSize * 64, bytes: 20 * T * H * headSize }),
  });
});
