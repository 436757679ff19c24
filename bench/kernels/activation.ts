/** SwiGLU, GELU and GeGLU, forward and backward: elementwise, bound by memory. */
import {
  gegluBackward,
  gegluForward,
  geluBackward,
  geluForward,
  swigluBackward,
  swigluForward,
} from "../../src/kernels/activation.ts";
import * as twin from "../../src/kernels/float64/activation.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const ROWS = 1024;
const WIDTH = 704;
const shape = `${ROWS} x ${WIDTH}`;

export const activationCases: readonly BenchmarkCase[] = [
  {
    name: "SwiGLU forward",
    shape,
    quick: true,
    record: (bench, program) => {
      const gateUp = bench.normal([ROWS, 2 * WIDTH]);
      const y = bench.zeros(ROWS, WIDTH);
      program.dispatch(swigluForward, { gateUp: gateUp.tensor, y });
      return () => bench.expect("y", y, twin.swigluForward(gateUp.values, WIDTH));
    },
  },
  {
    name: "SwiGLU backward",
    shape,
    quick: true,
    record: (bench, program) => {
      const gateUp = bench.normal([ROWS, 2 * WIDTH]);
      const dy = bench.normal([ROWS, WIDTH]);
      const dGateUp = bench.zeros(ROWS, 2 * WIDTH);
      program.dispatch(swigluBackward, { dy: dy.tensor, gateUp: gateUp.tensor, dGateUp });
      return () => bench.expect("dGateUp", dGateUp, twin.swigluBackward(dy.values, gateUp.values, WIDTH));
    },
  },
  {
    name: "GELU forward",
    shape,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, WIDTH]);
      const y = bench.zeros(ROWS, WIDTH);
      program.dispatch(geluForward, { x: x.tensor, y });
      return () => bench.expect("y", y, twin.geluForward(x.values));
    },
  },
  {
    name: "GELU backward",
    shape,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, WIDTH]);
      const dy = bench.normal([ROWS, WIDTH]);
      const dx = bench.zeros(ROWS, WIDTH);
      program.dispatch(geluBackward, { dy: dy.tensor, x: x.tensor, dx });
      return () => bench.expect("dx", dx, twin.geluBackward(dy.values, x.values));
    },
  },
  {
    name: "GeGLU forward",
    shape,
    quick: false,
    record: (bench, program) => {
      const gateUp = bench.normal([ROWS, 2 * WIDTH]);
      const y = bench.zeros(ROWS, WIDTH);
      program.dispatch(gegluForward, { gateUp: gateUp.tensor, y });
      return () => bench.expect("y", y, twin.gegluForward(gateUp.values, WIDTH));
    },
  },
  {
    name: "GeGLU backward",
    shape,
    quick: false,
    record: (bench, program) => {
      const gateUp = bench.normal([ROWS, 2 * WIDTH]);
      const dy = bench.normal([ROWS, WIDTH]);
      const dGateUp = bench.zeros(ROWS, 2 * WIDTH);
      program.dispatch(gegluBackward, { dy: dy.tensor, gateUp: gateUp.tensor, dGateUp });
      return () => bench.expect("dGateUp", dGateUp, twin.gegluBackward(dy.values, gateUp.values, WIDTH));
    },
  },
];
