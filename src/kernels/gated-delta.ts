/**
 * The recurrence of Qwen3.5's DeltaNet layers, the gated delta rule (Yang, Kautz and Hatamizadeh 2024), forward and
 * backward. A value head has a state S [K, V], where K is the channels of a key and V those of a value. decay is
 * exp(g); khat and qhat are k and q times the factors of `gated-delta-heads.ts`:
 *
 *   S' = decay S,   delta = v - khat^T S',   S <- S' + khat (beta delta)^T,   out = qhat^T S
 *
 * Backward, D is the gradient of S: from the outputs of this row and of all later ones. The first line goes from the
 * last row to the first, the second line from the first row to the last:
 *
 *   D += qhat dOut^T,   dv = beta khat^T D,   dkhat = D (beta delta),   D <- decay (D - khat dv^T)
 *   S' = decay S,   dkhat -= S' dv,   S <- S' + khat (beta delta)^T,   dqhat = S dOut
 *
 * The first line needs no S and the second no D, so that only delta [T, V] is stored for the backward pass, and it
 * takes three passes, each as long as the forward one. An invocation keeps a column of the matrix in registers, or a
 * row where the sum goes over V. No sum goes over several invocations, so there is no barrier. A workgroup has some
 * columns of one head of one segment. It takes 7 K V flops a row, backward 21 K V, and reads q and k (or v, dv, dOut,
 * delta) from memory once, then from a cache.
 *
 * A segment is a range of rows: u32[4] = (start, end, slot, flags). Where it continues another one, it starts from the
 * state that the other has put into a slot in an earlier dispatch. So a prompt with two completions is three segments
 * in two dispatches. In generation a sequence has a slot, from which each pass takes its state and into which it puts
 * it.
 */
import { Columns, type DeltaSize, perSize, slices } from "./gated-delta-columns.ts";
import { BRANCH_OF, flagged, SEGMENT_WORDS } from "./gated-delta-segments.ts";
import { type ActivationFormat, inFormats, kernel, type Values } from "./kernel.ts";
import { LONG_SEQUENCE } from "./rope-table.ts";
import { activationBinding } from "./stored.ts";
import { inVectors, type Lanes } from "./wgsl.ts";

/** What a dispatch is told: its first segment, how many it has, and how rows are divided into heads. */
const UNIFORMS = { T: "u32", W: "u32", heads: "u32", keyHeads: "u32", first: "u32", count: "u32" } as const;

const costOf =
  ({ keySize, valueSize }: DeltaSize, numbers: number) =>
  ({ T = 0, heads = 0 }: Values) => ({
    flops: 7 * T * heads * keySize * valueSize,
    bytes: 4 * T * heads * numbers,
  });

/**
 * qkv [T, W] (queries and keys of `keyHeads` heads, values of `heads` heads), factors [T, heads, 4] of `deltaFactors`,
 * positions [T], segments [N, 4], of which `count` from `first` on are run -> out [T, heads V], deltas [T, heads V];
 * states [slots, heads K V] by the segments' flags, in an order of their own.
 */
export const deltaForward = perSize((size, facts) => {
  const { keySize, valueSize } = size;
  return inFormats((format) =>
    inVectors(
      ({ W }) => [keySize, W],
      (lanes) => {
        const columns = new Columns(lanes, keySize, valueSize, facts);
        const queries = columns.vector("queries", "qkv", "query");
        const keys = columns.vector("keys", "qkv", "key");
        return kernel({
          name: "deltaForward",
          read: {
            qkv: lanes.activations("T, W"),
            factors: "f32[T, 4*heads] as vec4f",
            positions: "u32[T]",
            segments: `u32[N, ${SEGMENT_WORDS}] as vec4u`,
          },
          write: {
            states: `f32[slots, heads*${keySize * valueSize}]${lanes.view}`,
            out: `f32[T, heads*${valueSize}]`,
            deltas: `f32[T, heads*${valueSize}]`,
          },
          uniforms: UNIFORMS,
          enable: columns.enable,
          wgsl: /* wgsl */ `${lanes.wgsl}
fn number(i: u32) -> f32 { return ${lanes.count === 1 ? "f32(qkv[i])" : "E(qkv[i / 4u])[i % 4u]"}; }
${columns.entry(
  size,
  /* wgsl */ `
  var continues = false;
  if (${flagged("CONTINUES")} && start < end) { continues = (positions[start] & ${LONG_SEQUENCE - 1}u) != 0u; }
  ${columns.zeros()}
  if (continues) {
    ${columns.add("states", "segment.z")}
  }
  for (var t = start; t < end; t++) {
    let factor = factors[t * u.heads + head];
    let query = (t * u.W + queryFrom) / LANES;
    let key = (t * u.W + keyFrom) / LANES;
    ${columns.each((j) => `var read${j} = E();`)}
    ${keys.load}
    ${queries.load}
    ${columns.eachElement(
      (c) => `let key${c} = ${keys.of(c)};`,
      (x, c, j) => `read${j} += key${c} * ${x};`,
    )}
    ${columns.each(
      (
        j,
      ) => `let delta${j} = number(t * u.W + valueFrom + ${columns.loadable(j)}) - factor.x * factor.z * total(read${j});
    let step${j} = factor.y * factor.z * delta${j};
    var sum${j} = E();`,
    )}
    ${columns.eachElement(
      (c) => `let along${c} = ${keys.of(c)}; let query${c} = ${queries.of(c)};`,
      (x, c, j) => `${x} = factor.x * ${x} + along${c} * step${j}; sum${j} += query${c} * ${x};`,
    )}
    let result = (t * u.heads + head) * ${valueSize}u;
    ${columns.store((column, j) => `deltas[result + ${column}] = delta${j}; out[result + ${column}] = factor.w * total(sum${j});`)}
  }
  if (${flagged("KEEPS")}) {
    ${columns.keep("states", "segment.z")}
  }`,
)}`,
          grid: ({ heads = 0, count = 0 }) => [heads * slices(valueSize, facts), count],
          cost: costOf(size, 3 * valueSize),
        });
      },
      format,
    ),
  );
});

/**
 * From the last row to the first: dOut [T, heads V] -> the values' columns of dQkv [T, W]. dStates [slots `branches`,
 * heads K V] takes the gradient of the state that a segment continued, and has what a segment that kept its state is
 * given of those.
 */
export const deltaBackwardValue = perSize((size, facts) => {
  const { keySize, valueSize } = size;
  return inFormats((format) =>
    inVectors(
      ({ W }) => [keySize, W],
      (lanes) => {
        const columns = new Columns(lanes, keySize, valueSize, facts);
        const queries = columns.vector("queries", "qkv", "query");
        const keys = columns.vector("keys", "qkv", "key");
        return kernel({
          name: "deltaBackwardValue",
          read: {
            qkv: lanes.activations("T, W"),
            factors: "f32[T, 4*heads] as vec4f",
            segments: `u32[N, ${SEGMENT_WORDS}] as vec4u`,
            dOut: `f32[T, heads*${valueSize}]`,
          },
          write: { dQkv: "f32[T, W]", dStates: `f32[places, heads*${keySize * valueSize}]${lanes.view}` },
          uniforms: { ...UNIFORMS, branches: "u32" },
          enable: columns.enable,
          wgsl: /* wgsl */ `${lanes.wgsl}
${columns.entry(
  size,
  /* wgsl */ `
  ${beginBackward(columns)}
  for (var after = end; after > start; after--) {
    let t = after - 1u;
    let factor = factors[t * u.heads + head];
    let query = (t * u.W + queryFrom) / LANES;
    let key = (t * u.W + keyFrom) / LANES;
    let result = (t * u.heads + head) * ${valueSize}u;
    ${columns.each((j) => `let given${j} = factor.w * dOut[result + ${columns.loadable(j)}]; var along${j} = E();`)}
    ${keys.load}
    ${queries.load}
    ${columns.eachElement(
      (c) => `let query${c} = ${queries.of(c)}; let key${c} = ${keys.of(c)};`,
      (x, c, j) => `${x} += query${c} * given${j}; along${j} += key${c} * ${x};`,
    )}
    ${columns.each((j) => `let dValue${j} = factor.y * factor.z * total(along${j}); let step${j} = factor.z * dValue${j};`)}
    ${columns.store((column, j) => `dQkv[t * u.W + valueFrom + ${column}] = dValue${j};`)}
    ${columns.eachElement(
      (c) => `let back${c} = ${keys.of(c)};`,
      (x, c, j) => `${x} = factor.x * (${x} - back${c} * step${j});`,
    )}
  }
  if (${flagged("CONTINUES")}) {
    ${columns.keep("dStates", `segment.z * u.branches + ${BRANCH_OF}`)}
  }`,
)}`,
          grid: ({ heads = 0, count = 0 }) => [heads * slices(valueSize, facts), count],
          cost: costOf(size, 2 * valueSize),
        });
      },
      format,
    ),
  );
});

/** The gradient of a segment's last state: what its branches left, in their order. */
function beginBackward(columns: Columns): string {
  return /* wgsl */ `${columns.zeros()}
  if (${flagged("KEEPS")}) {
    for (var branch = 0u; branch < u.branches; branch++) {
      ${columns.add("dStates", "segment.z * u.branches + branch")}
    }
  }`;
}

/** WGSL: queries' and keys' numbers that belong to an invocation's rows of the state. */
const rowNumber = (columns: Columns, from: string, j: number) => `f32(qkv[t * u.W + ${from} + ${columns.loadable(j)}])`;

/** What both passes over rows of the state read: sums go over V, so that is what vectors are of. */
const rowBindings = ({ valueSize }: DeltaSize, lanes: Lanes, format: ActivationFormat) => ({
  qkv: activationBinding(format, "T, W", false),
  factors: "f32[T, 4*heads] as vec4f",
  segments: `u32[N, ${SEGMENT_WORDS}] as vec4u`,
  dOut: `f32[T, heads*${valueSize}]${lanes.view}`,
  deltas: `f32[T, heads*${valueSize}]${lanes.view}`,
  dQkv: `f32[T, W]${lanes.view}`,
});

/** Vectors of V numbers in rows of W, behind the queries and keys. */
const valueWidths =
  ({ keySize, valueSize }: DeltaSize) =>
  ({ W, keyHeads = 0 }: Values) => [valueSize, W, 2 * keyHeads * keySize];

/**
 * From the first row to the last, after `deltaBackwardValue` -> dHeads [T, 2, heads, K]: of each value head the
 * gradient of qhat, and of khat what comes through the state that was read. states as `deltaForward`'s, in another
 * order.
 */
export const deltaBackwardQueryKey = perSize((size, facts) => {
  const { keySize, valueSize } = size;
  return inFormats((format) =>
    inVectors(
      valueWidths(size),
      (lanes) => {
        const columns = new Columns(lanes, valueSize, keySize, facts);
        const given = columns.vector("gradients", "dOut", "result");
        const written = columns.vector("changes", "deltas", "result");
        const dValues = columns.vector("dValues", "dQkv", "value");
        return kernel({
          name: "deltaBackwardQueryKey",
          read: rowBindings(size, lanes, format),
          write: {
            states: `f32[slots, heads*${keySize * valueSize}]${lanes.view}`,
            dHeads: `f32[T, 2*heads*${keySize}]`,
          },
          uniforms: UNIFORMS,
          enable: columns.enable,
          wgsl: /* wgsl */ `${lanes.wgsl}
${columns.entry(
  size,
  /* wgsl */ `
  ${columns.zeros()}
  if (${flagged("CONTINUES")}) {
    ${columns.add("states", "segment.z")}
  }
  for (var t = start; t < end; t++) {
    let factor = factors[t * u.heads + head];
    let result = (t * u.heads + head) * ${valueSize}u / LANES;
    let value = (t * u.W + valueFrom) / LANES;
    ${given.load}
    ${written.load}
    ${dValues.load}
    ${columns.each(
      (j) => `let step${j} = factor.y * factor.z * ${rowNumber(columns, "keyFrom", j)};
    var read${j} = E();
    var sum${j} = E();`,
    )}
    ${columns.eachElement(
      (c) => `let given${c} = ${given.of(c)}; let delta${c} = ${written.of(c)}; let dValue${c} = ${dValues.of(c)};`,
      (x, c, j) =>
        `${x} = factor.x * ${x}; read${j} += dValue${c} * ${x}; ${x} += delta${c} * step${j}; sum${j} += given${c} * ${x};`,
    )}
    let own = (2u * t * u.heads + head) * ${keySize}u;
    ${columns.store((column, j) => `dHeads[own + ${column}] = total(sum${j}); dHeads[own + u.heads * ${keySize}u + ${column}] = -total(read${j});`)}
  }
  if (${flagged("KEEPS")}) {
    ${columns.keep("states", "segment.z")}
  }`,
)}`,
          grid: ({ heads = 0, count = 0 }) => [heads * slices(keySize, facts), count],
          cost: costOf(size, 3 * valueSize + 2 * keySize),
        });
      },
      format,
    ),
  );
});

/**
 * From the last row to the first, after `deltaBackwardQueryKey`: dHeads [T, 2, heads, K] gets the rest of khat's
 * gradient, what comes through the state that was written. dStates as `deltaBackwardValue`'s, in another order.
 */
export const deltaBackwardKey = perSize((size, facts) => {
  const { keySize, valueSize } = size;
  return inFormats((format) =>
    inVectors(
      valueWidths(size),
      (lanes) => {
        const columns = new Columns(lanes, valueSize, keySize, facts);
        const given = columns.vector("gradients", "dOut", "result");
        const written = columns.vector("changes", "deltas", "result");
        const dValues = columns.vector("dValues", "dQkv", "value");
        return kernel({
          name: "deltaBackwardKey",
          read: rowBindings(size, lanes, format),
          write: {
            dStates: `f32[places, heads*${keySize * valueSize}]${lanes.view}`,
            dHeads: `f32[T, 2*heads*${keySize}]`,
          },
          uniforms: { ...UNIFORMS, branches: "u32" },
          enable: columns.enable,
          wgsl: /* wgsl */ `${lanes.wgsl}
${columns.entry(
  size,
  /* wgsl */ `
  ${beginBackward(columns)}
  for (var after = end; after > start; after--) {
    let t = after - 1u;
    let factor = factors[t * u.heads + head];
    let result = (t * u.heads + head) * ${valueSize}u / LANES;
    let value = (t * u.W + valueFrom) / LANES;
    ${given.load}
    ${written.load}
    ${dValues.load}
    ${columns.each(
      (j) => `let query${j} = factor.w * ${rowNumber(columns, "queryFrom", j)};
    let key${j} = factor.z * ${rowNumber(columns, "keyFrom", j)};
    var sum${j} = E();`,
    )}
    ${columns.eachElement(
      (c) => `let given${c} = ${given.of(c)}; let delta${c} = ${written.of(c)}; let dValue${c} = ${dValues.of(c)};`,
      (x, c, j) =>
        `${x} += given${c} * query${j}; sum${j} += delta${c} * ${x}; ${x} = factor.x * (${x} - dValue${c} * key${j});`,
    )}
    let own = ((2u * t + 1u) * u.heads + head) * ${keySize}u;
    ${columns.store((column, j) => `dHeads[own + ${column}] += factor.y * total(sum${j});`)}
  }
  if (${flagged("CONTINUES")}) {
    ${columns.keep("dStates", `segment.z * u.branches + ${BRANCH_OF}`)}
  }`,
)}`,
          grid: ({ heads = 0, count = 0 }) => [heads * slices(keySize, facts), count],
          cost: costOf(size, 3 * valueSize + 2 * keySize),
        });
      },
      format,
    ),
  );
});
