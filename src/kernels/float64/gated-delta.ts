/**
 * The gated delta rule (Yang, Kautz and Hatamizadeh 2024) as Qwen3.5 has it, forward and backward, in float64: what lies
 * between the short convolution and the gated norm of a DeltaNet layer. A row follows another one, or none: the second
 * completion of a prompt follows the prompt's last row, as the first one does.
 *
 *   qhat = q / sqrt(q . q + 1e-6) / sqrt(K),  khat = k / sqrt(k . k + 1e-6)          a key head, of K channels
 *   beta = sigmoid(b),  g = -exp(aLog) softplus(a + dtBias)                          a value head, of V channels
 *   S' = exp(g) S,  delta = v - khat^T S',  S <- S' + khat (beta delta)^T,  out = qhat^T S        S [K, V]
 *
 * Value head h reads queries and keys of head h keyHeads / valueHeads, rounded down.
 */
import { sigmoid } from "./activation.ts";
import { joinColumns, splitColumns } from "./columns.ts";
import { add, at, idAt } from "./elements.ts";

/** What is added to the sum of squares of a query or a key. */
const L2_EPSILON = 1e-6;

export interface DeltaShape {
  readonly keyHeads: number;
  /** A multiple of the key heads. */
  readonly valueHeads: number;
  /** K, channels of queries and keys. */
  readonly keySize: number;
  /** V, channels of values. */
  readonly valueSize: number;
}

export interface DeltaInputs extends DeltaShape {
  /** [T, 2 keyHeads K + valueHeads V]: queries, keys, values, behind the convolution and its SiLU. */
  readonly qkv: Float64Array;
  /** [T, valueHeads]. */
  readonly a: Float64Array;
  /** [T, valueHeads]. */
  readonly b: Float64Array;
  /** [valueHeads]. */
  readonly aLog: Float64Array;
  /** [valueHeads]. */
  readonly dtBias: Float64Array;
  /** [T]: the row, before it, that each row follows; -1 for the first of a sequence. */
  readonly previous: ArrayLike<number>;
}

/** `log(1 + exp(x))`, without overflow. */
export function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

/** Vectors of `size` by their lengths: `y = x inverse`, `inverse = 1 / sqrt(x . x + 1e-6)`. */
export function l2NormForward(x: Float64Array, size: number): { y: Float64Array; inverse: Float64Array } {
  const inverse = new Float64Array(x.length / size);
  for (let n = 0; n < inverse.length; n++) {
    let squares = 0;
    for (let d = 0; d < size; d++) squares += at(x, n * size + d) ** 2;
    inverse[n] = 1 / Math.sqrt(squares + L2_EPSILON);
  }
  return { y: x.map((value, i) => value * at(inverse, Math.floor(i / size))), inverse };
}

/** `dx = inverse (dy - y (y . dy))`. */
export function l2NormBackward(dy: Float64Array, y: Float64Array, inverse: Float64Array, size: number): Float64Array {
  const dx = new Float64Array(dy.length);
  for (let n = 0; n < inverse.length; n++) {
    let along = 0;
    for (let d = n * size; d < (n + 1) * size; d++) along += at(y, d) * at(dy, d);
    for (let d = n * size; d < (n + 1) * size; d++) dx[d] = at(inverse, n) * (at(dy, d) - at(y, d) * along);
  }
  return dx;
}

/** What the recurrence reads: queries and keys by their lengths, queries by 1 / sqrt(K) too, and the gates. */
function prepared(inputs: DeltaInputs) {
  const { qkv, a, b, aLog, dtBias, keyHeads, valueHeads, keySize, valueSize, previous } = inputs;
  const rows = previous.length;
  const widths = [keyHeads * keySize, keyHeads * keySize, valueHeads * valueSize];
  const [q, k, v] = splitColumns(qkv, widths, rows) as [Float64Array, Float64Array, Float64Array];
  const [queries, keys] = [l2NormForward(q, keySize), l2NormForward(k, keySize)];
  const rate = aLog.map((value) => -Math.exp(value));
  const g = a.map((value, i) => at(rate, i % valueHeads) * softplus(value + at(dtBias, i % valueHeads)));
  return { rows, v, queries, keys, scale: 1 / Math.sqrt(keySize), rate, g, beta: b.map(sigmoid) };
}

type Prepared = ReturnType<typeof prepared>;

/** The first element of a row's head among keys and among values. */
function places({ keyHeads, valueHeads, keySize, valueSize }: DeltaShape, row: number, head: number) {
  const keyHead = Math.floor((head * keyHeads) / valueHeads);
  return { key: (row * keyHeads + keyHead) * keySize, value: (row * valueHeads + head) * valueSize };
}

/**
 * One head's pass over all rows; out and deltas are written.
 *
 * @returns the state behind each row, [T, K, V]
 */
function headForward(
  inputs: DeltaInputs,
  { rows, v, queries, keys, scale, g, beta }: Prepared,
  head: number,
  out: Float64Array,
  deltas: Float64Array,
): Float64Array {
  const { keySize, valueSize, valueHeads, previous } = inputs;
  const size = keySize * valueSize;
  const states = new Float64Array(rows * size);
  for (let t = 0; t < rows; t++) {
    const { key, value } = places(inputs, t, head);
    const state = states.subarray(t * size, (t + 1) * size);
    const before = idAt(previous, t);
    if (before >= t) throw new RangeError(`Row ${t} follows row ${before}.`);
    if (before >= 0) {
      const decay = Math.exp(at(g, t * valueHeads + head));
      for (let i = 0; i < size; i++) state[i] = decay * at(states, before * size + i);
    }
    for (let j = 0; j < valueSize; j++) {
      let read = 0;
      for (let i = 0; i < keySize; i++) read += at(keys.y, key + i) * at(state, i * valueSize + j);
      const delta = at(v, value + j) - read;
      deltas[value + j] = delta;
      let sum = 0;
      for (let i = 0; i < keySize; i++) {
        add(state, i * valueSize + j, at(keys.y, key + i) * at(beta, t * valueHeads + head) * delta);
        sum += at(queries.y, key + i) * scale * at(state, i * valueSize + j);
      }
      out[value + j] = sum;
    }
  }
  return states;
}

/**
 * @returns out and deltas (v - khat^T S'), both [T, valueHeads, V]; `states(row)` gives the states behind a row,
 * [valueHeads, K, V]
 */
export function gatedDeltaForward(inputs: DeltaInputs): {
  out: Float64Array;
  deltas: Float64Array;
  states: (row: number) => Float64Array;
} {
  const { valueHeads, keySize, valueSize } = inputs;
  const known = prepared(inputs);
  const out = new Float64Array(known.v.length);
  const deltas = new Float64Array(known.v.length);
  for (let head = 0; head < valueHeads; head++) headForward(inputs, known, head, out, deltas);
  const states = (row: number) => {
    const size = keySize * valueSize;
    const found = new Float64Array(valueHeads * size);
    for (let head = 0; head < valueHeads; head++) {
      const ofHead = headForward(inputs, known, head, out, deltas);
      found.set(ofHead.subarray(row * size, (row + 1) * size), head * size);
    }
    return found;
  };
  return { out, deltas, states };
}

export interface DeltaGradients {
  /** The gradient of qkv, of its shape. */
  readonly dQkv: Float64Array;
  /** [T, valueHeads]. */
  readonly da: Float64Array;
  /** [T, valueHeads]. */
  readonly db: Float64Array;
  /** [valueHeads]. */
  readonly dALog: Float64Array;
  /** [valueHeads]. */
  readonly dDtBias: Float64Array;
}

/** Gradients of what the recurrence reads. */
export interface RuleGradients {
  /** [T, valueHeads, K] each: the gradients of qhat and khat as each value head reads them. */
  readonly dQueries: Float64Array;
  readonly dKeys: Float64Array;
  /** [T, valueHeads, V]. */
  readonly dv: Float64Array;
  /** [T, valueHeads]. */
  readonly dg: Float64Array;
  readonly dBeta: Float64Array;
}

/**
 * With D the gradient of a row's state, of all that follows it and of its own `out` (D += qhat dOut^T), and S' the state
 * of the row before, decayed: `dqhat = S dOut`, `du = D^T khat`, `dv = beta du`, `dbeta = du . delta`,
 * `dkhat = D (beta delta) - S' dv`, `dS' = D - khat dv^T`, `dg = sum dS' S'`, and the row before gets `exp(g) dS'`.
 *
 * @param dOut [T, valueHeads, V]
 */
export function deltaRuleBackward(inputs: DeltaInputs & { readonly dOut: Float64Array }): RuleGradients {
  const { dOut, keySize, valueSize, valueHeads, previous } = inputs;
  const known = prepared(inputs);
  const { rows, v, queries, keys, scale, g, beta } = known;
  const size = keySize * valueSize;
  const [dQueries, dKeys] = [0, 1].map(() => new Float64Array(rows * valueHeads * keySize)) as [
    Float64Array,
    Float64Array,
  ];
  const dv = new Float64Array(v.length);
  const [dg, dBeta] = [new Float64Array(g.length), new Float64Array(g.length)];
  const [out, deltas] = [new Float64Array(v.length), new Float64Array(v.length)];
  for (let head = 0; head < valueHeads; head++) {
    const states = headForward(inputs, known, head, out, deltas);
    const dStates = new Float64Array(states.length);
    for (let t = rows - 1; t >= 0; t--) {
      const { key, value } = places(inputs, t, head);
      const gate = t * valueHeads + head;
      const before = idAt(previous, t);
      const decay = Math.exp(at(g, gate));
      for (let j = 0; j < valueSize; j++) {
        let du = 0;
        for (let i = 0; i < keySize; i++) {
          const place = t * size + i * valueSize + j;
          add(dStates, place, at(queries.y, key + i) * scale * at(dOut, value + j));
          add(dQueries, gate * keySize + i, at(states, place) * at(dOut, value + j));
          du += at(keys.y, key + i) * at(dStates, place);
        }
        const dValue = at(beta, gate) * du;
        dv[value + j] = dValue;
        add(dBeta, gate, du * at(deltas, value + j));
        for (let i = 0; i < keySize; i++) {
          const place = i * valueSize + j;
          const decayed = before < 0 ? 0 : decay * at(states, before * size + place);
          const gradient = at(dStates, t * size + place);
          add(dKeys, gate * keySize + i, gradient * at(beta, gate) * at(deltas, value + j) - decayed * dValue);
          const dDecayed = gradient - at(keys.y, key + i) * dValue;
          add(dg, gate, dDecayed * decayed);
          if (before >= 0) add(dStates, before * size + place, decay * dDecayed);
        }
      }
    }
  }
  return { dQueries, dKeys, dv, dg, dBeta };
}

/** The whole way back, through the lengths and the gates too. @param dOut [T, valueHeads, V] */
export function gatedDeltaBackward(inputs: DeltaInputs & { readonly dOut: Float64Array }): DeltaGradients {
  const { keySize, keyHeads, valueHeads } = inputs;
  const known = prepared(inputs);
  const { queries, keys, scale, rows } = known;
  const { dQueries, dKeys, dv, dg, dBeta } = deltaRuleBackward(inputs);
  /** The value heads of a key head read the same. */
  const summed = (d: Float64Array, factor: number) => {
    const sums = new Float64Array(rows * keyHeads * keySize);
    for (let i = 0; i < d.length; i++) {
      const [n, c] = [Math.floor(i / keySize), i % keySize];
      const { key } = places(inputs, Math.floor(n / valueHeads), n % valueHeads);
      add(sums, key + c, factor * at(d, i));
    }
    return sums;
  };
  const dq = l2NormBackward(summed(dQueries, scale), queries.y, queries.inverse, keySize);
  const dk = l2NormBackward(summed(dKeys, 1), keys.y, keys.inverse, keySize);
  return { dQkv: joinColumns([dq, dk, dv], rows), ...gatesBackward(inputs, known, dg, dBeta) };
}

/**
 * `dALog = sum_t dg g`, `da = dg (-exp(aLog)) sigmoid(a + dtBias)`, `dDtBias = sum_t da`, `db = dbeta beta (1 - beta)`.
 */
function gatesBackward(
  { a, aLog, dtBias, valueHeads }: DeltaInputs,
  { rate, g, beta }: Prepared,
  dg: Float64Array,
  dBeta: Float64Array,
): Omit<DeltaGradients, "dQkv"> {
  const [da, db] = [new Float64Array(g.length), new Float64Array(g.length)];
  const [dALog, dDtBias] = [new Float64Array(aLog.length), new Float64Array(dtBias.length)];
  for (let i = 0; i < g.length; i++) {
    const head = i % valueHeads;
    da[i] = at(dg, i) * at(rate, head) * sigmoid(at(a, i) + at(dtBias, head));
    db[i] = at(dBeta, i) * at(beta, i) * (1 - at(beta, i));
    add(dALog, head, at(dg, i) * at(g, i));
    add(dDtBias, head, at(da, i));
  }
  return { da, db, dALog, dDtBias };
}
