/**
 * The gated delta rule with its gates and lengths over sequences of one length, forward, there and back, and a token of
 * each sequence. Each sequence computes the same kind of numbers, so the first one alone is compared with float64.
 */
import type { Program } from "../../src/engine/gpu/program.ts";
import * as twin from "../../src/kernels/float64/gated-delta.ts";
import {
  deltaBackwardKey,
  deltaBackwardQueryKey,
  deltaBackwardValue,
  deltaForward,
} from "../../src/kernels/gated-delta.ts";
import { deltaBackwardGates, deltaBackwardHeads, deltaFactors } from "../../src/kernels/gated-delta-heads.ts";
import { SEGMENT, SEGMENT_WORDS } from "../../src/kernels/gated-delta-segments.ts";
import { type BenchmarkCase, type BenchmarkMemory, expectAllClose } from "../measure/case.ts";

const SEQUENCES = 16;
/** Qwen3.5's heads are of 128 channels, 16 or more of them. */
const SHAPE = { keyHeads: 4, valueHeads: 8, keySize: 128, valueSize: 128 };
const { keyHeads, valueHeads, keySize, valueSize } = SHAPE;
const WIDTH = 2 * keyHeads * keySize + valueHeads * valueSize;
const STATE = valueHeads * keySize * valueSize;

const shapeOf = (length: number) =>
  `${SEQUENCES} x ${length} tokens, ${keyHeads}/${valueHeads} heads of ${keySize} x ${valueSize}`;

function inputs(bench: BenchmarkMemory, length: number, flags: number) {
  const rows = SEQUENCES * length;
  const qkv = bench.normal([rows, WIDTH]);
  const gates = bench.normal([rows, 2 * valueHeads]);
  const [aLog, dtBias] = [bench.normal([valueHeads]), bench.normal([valueHeads])];
  const segments = new Uint32Array(SEQUENCES * SEGMENT_WORDS);
  for (let i = 0; i < SEQUENCES; i++) segments.set([i * length, (i + 1) * length, i, flags], i * SEGMENT_WORDS);
  const own = (x: Float64Array, from: number, width: number, total: number) =>
    Float64Array.from({ length: length * width }, (_, i) => {
      return x[Math.floor(i / width) * total + from + (i % width)] ?? Number.NaN;
    });
  return {
    rows,
    exact: {
      ...SHAPE,
      ...{ qkv: own(qkv.values, 0, WIDTH, WIDTH), aLog: aLog.values, dtBias: dtBias.values },
      a: own(gates.values, 0, valueHeads, 2 * valueHeads),
      b: own(gates.values, valueHeads, valueHeads, 2 * valueHeads),
      previous: Array.from({ length }, (_, t) => t - 1),
    } satisfies twin.DeltaInputs,
    gates: { gates: gates.tensor, aLog: aLog.tensor, dtBias: dtBias.tensor, aFrom: 0, bFrom: valueHeads },
    rule: {
      ...{ qkv: qkv.tensor, keyHeads, factors: bench.zeros(rows, 4 * valueHeads) },
      ...{ segments: bench.of([SEQUENCES, SEGMENT_WORDS], segments), first: 0, count: SEQUENCES },
    },
    states: bench.zeros(SEQUENCES, STATE),
    out: bench.zeros(rows, valueHeads * valueSize),
    deltas: bench.zeros(rows, valueHeads * valueSize),
  };
}

/** @param position of all rows: those at 0 start a sequence */
function recordForward(bench: BenchmarkMemory, program: Program, length: number, flags: number, position: number) {
  const made = inputs(bench, length, flags);
  const { rows, gates, rule, states, out, deltas } = made;
  const { facts } = bench.device;
  const { qkv, factors } = rule;
  program.dispatch(deltaFactors(facts), { ...gates, qkv, factors, keyHeads, keySize });
  const positions = bench.of([rows], new Uint32Array(rows).fill(position));
  program.dispatch(deltaForward(SHAPE, facts), { ...rule, positions, states, out, deltas });
  return made;
}

const TOKENS = 64;

export const gatedDeltaCases: readonly BenchmarkCase[] = [
  {
    name: "gated delta rule forward",
    shape: shapeOf(TOKENS),
    quick: false,
    record: (bench, program) => {
      const { exact, out } = recordForward(bench, program, TOKENS, 0, 0);
      return async () => {
        const wanted = twin.gatedDeltaForward(exact).out;
        expectAllClose("out", (await bench.device.download(out)).subarray(0, wanted.length), wanted);
      };
    },
  },
  {
    name: "gated delta rule forward + backward",
    shape: shapeOf(TOKENS),
    quick: false,
    record: (bench, program) => {
      const made = recordForward(bench, program, TOKENS, 0, 0);
      const { rows, exact, gates, rule, deltas, states } = made;
      const { facts } = bench.device;
      const { qkv, factors } = rule;
      const dOut = bench.normal([rows, valueHeads * valueSize]);
      const dQkv = bench.zeros(rows, WIDTH);
      const back = { ...rule, dOut: dOut.tensor, dQkv };
      const dHeads = bench.zeros(rows, 2 * valueHeads * keySize);
      const terms = bench.zeros(rows, 2 * valueHeads);
      const dGates = bench.zeros(rows, 2 * valueHeads);
      const given = { segments: rule.segments, first: 0, count: SEQUENCES, branches: 1 };
      program.dispatch(deltaBackwardValue(SHAPE, facts), { ...back, dStates: states, branches: 1 });
      program.dispatch(deltaBackwardQueryKey(SHAPE, facts), { ...back, deltas, states, dHeads });
      program.dispatch(deltaBackwardKey(SHAPE, facts), { ...back, deltas, dStates: states, dHeads, branches: 1 });
      program.dispatch(deltaBackwardHeads(facts), { qkv, factors, keyHeads, dHeads, deltas, dQkv, terms });
      const carries = bench.zeros(SEQUENCES, valueHeads);
      const aLogTerms = bench.zeros(rows, valueHeads);
      program.dispatch(deltaBackwardGates, { ...gates, ...given, terms, dGates, aLogTerms, carries });
      return async () => {
        const own = dOut.values.subarray(0, TOKENS * valueHeads * valueSize);
        const wanted = twin.gatedDeltaBackward({ ...exact, dOut: own });
        const found = await bench.device.download(dQkv);
        expectAllClose("dQkv", found.subarray(0, wanted.dQkv.length), wanted.dQkv);
        const ofGates = (await bench.device.download(dGates)).subarray(0, 2 * TOKENS * valueHeads);
        const side = (from: number) => ofGates.filter((_, i) => Math.floor(i / valueHeads) % 2 === from);
        expectAllClose("da", side(0), wanted.da);
        expectAllClose("db", side(1), wanted.db);
      };
    },
  },
  {
    name: "gated delta rule, a token of each sequence",
    shape: shapeOf(1),
    quick: false,
    record: (bench, program) => {
      const { exact, out } = recordForward(bench, program, 1, SEGMENT.KEEPS | SEGMENT.CONTINUES, 1);
      return async () => {
        // The states were zeros before the first replay.
        const wanted = twin.gatedDeltaForward(exact).out;
        expectAllClose("out", (await bench.device.download(out)).subarray(0, wanted.length), wanted);
      };
    },
  },
];
