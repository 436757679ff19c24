/** Attention over causal sequences with grouped-query heads: forward, and both halves of its backward pass. */
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../src/kernels/attention.ts";
import * as twin from "../../src/kernels/float64/attention.ts";
import { type BenchmarkCase, type BenchmarkMemory, expectAllClose } from "../measure/case.ts";

const HEADS = 8;
const KEY_VALUE_HEADS = 4;
const ROWS = 1024;
/** Tokens of a sequence: a row sees half of them on the average. */
const LENGTH = 128;

export const attentionCases: readonly BenchmarkCase[] = [8, 32, 64, 128].flatMap((headSize) => {
  const shape = `${ROWS / LENGTH} x ${LENGTH} tokens, ${HEADS}/${KEY_VALUE_HEADS} heads of ${headSize}`;
  const quick = headSize === 32;
  return [
    {
      name: "attention forward",
      shape,
      quick,
      record: (bench, program) => {
        const made = inputs(bench, headSize);
        program.dispatch(attentionForward(headSize, bench.device.facts), made.forward);
        return async () => {
          const exact = twin.attentionForward(made.exact);
          await bench.expect("out", made.forward.out, exact.out);
          await bench.expect("logSumExp", made.forward.logSumExp, exact.logSumExp);
        };
      },
    },
    {
      name: "attention forward, soft cap",
      shape,
      quick: false,
      record: (bench, program) => {
        const made = inputs(bench, headSize);
        const scores = { softCap: 1 }; // small enough that it bends the scores
        program.dispatch(attentionForward(headSize, bench.device.facts, "f32", scores), made.forward);
        return () => bench.expect("out", made.forward.out, twin.attentionForward({ ...made.exact, ...scores }).out);
      },
    },
    {
      name: "attention forward + backward",
      shape,
      quick: false,
      record: (bench, program) => {
        const { facts } = bench.device;
        const made = inputs(bench, headSize);
        const dOut = bench.normal([ROWS, HEADS * headSize]);
        const { out, logSumExp, ranges, qFrom, kFrom, vFrom, groupSize, keysPerRow } = made.forward;
        const shared = {
          ...{ fused: made.fused, dOut: dOut.tensor, logSumExp, qFrom, kFrom, vFrom, groupSize, keysPerRow },
          dFused: bench.zeros(ROWS, made.width),
          delta: bench.zeros(ROWS, HEADS),
        };
        const queryEnd = bench.of(
          [ROWS],
          Uint32Array.from({ length: ROWS }, (_, row) => row - (row % LENGTH) + LENGTH),
        );
        program.dispatch(attentionForward(headSize, facts), made.forward);
        program.dispatch(attentionBackwardQuery(headSize, facts), { ...shared, out, ranges });
        program.dispatch(attentionBackwardKeyValue(headSize, facts), { ...shared, queryEnd });
        return async () => {
          const exact = { ...made.exact, dOut: dOut.values };
          const { logSumExp: exactLogSumExp } = twin.attentionForward(made.exact);
          const { dq, dk, dv } = twin.attentionBackward({ ...exact, logSumExp: exactLogSumExp });
          const found = await bench.device.download(shared.dFused);
          const columns = (from: number, heads: number) =>
            Float64Array.from({ length: ROWS * heads * headSize }, (_, i) => {
              const row = Math.floor(i / (heads * headSize));
              return found[row * made.width + from + (i % (heads * headSize))] ?? Number.NaN;
            });
          expectAllClose("dq", columns(qFrom, HEADS), dq);
          expectAllClose("dk", columns(kFrom, KEY_VALUE_HEADS), dk);
          expectAllClose("dv", columns(vFrom, KEY_VALUE_HEADS), dv);
        };
      },
    },
  ] satisfies BenchmarkCase[];
});

/** Fused rows [q | k | v] and the forward pass's arguments; `exact` is the same for the float64 twin. */
function inputs(bench: BenchmarkMemory, headSize: number) {
  const kFrom = HEADS * headSize;
  const vFrom = kFrom + KEY_VALUE_HEADS * headSize;
  const width = vFrom + KEY_VALUE_HEADS * headSize;
  const fused = bench.normal([ROWS, width]);
  const seen = new Uint32Array(4 * ROWS);
  for (let row = 0; row < ROWS; row++) seen.set([0, 0, row - (row % LENGTH), row + 1], 4 * row);
  const columns = (from: number, to: number) => {
    const size = to - from;
    return Float64Array.from(
      { length: ROWS * size },
      (_, i) => fused.values[Math.floor(i / size) * width + from + (i % size)] ?? Number.NaN,
    );
  };
  return {
    width,
    fused: fused.tensor,
    forward: {
      ...{ q: fused.tensor, k: fused.tensor, v: fused.tensor, qFrom: 0, kFrom, vFrom },
      ranges: bench.of([ROWS, 4], seen),
      groupSize: HEADS / KEY_VALUE_HEADS,
      keysPerRow: LENGTH / 2,
      out: bench.zeros(ROWS, HEADS * headSize),
      logSumExp: bench.zeros(ROWS, HEADS),
    },
    exact: {
      ...{ q: columns(0, kFrom), k: columns(kFrom, vFrom), v: columns(vFrom, width) },
      ...{ ranges: seen, heads: HEADS, keyValueHeads: KEY_VALUE_HEADS, headSize },
    },
  };
}
