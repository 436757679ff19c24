/** Rows of a table looked up, and their gradients added up by token: bound by memory. */
import { Random } from "../../src/engine/random.ts";
import { bucketRows, embeddingBackward, gatherRows } from "../../src/kernels/embedding.ts";
import * as twin from "../../src/kernels/float64/embedding.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const ROWS = 1024;
const VOCABULARY = 8192;
const WIDTH = 256;
const shape = `${ROWS} rows, ${VOCABULARY} x ${WIDTH}`;

export const embeddingCases: readonly BenchmarkCase[] = [
  {
    name: "embedding forward",
    shape,
    quick: true,
    record: (bench, program) => {
      const table = bench.normal([VOCABULARY, WIDTH]);
      const y = bench.zeros(ROWS, WIDTH);
      const rows = bench.of([ROWS], tokens());
      program.dispatch(gatherRows(), { table: table.tensor, rows, y, firstRow: 0, accumulate: 0 });
      return () => bench.expect("y", y, twin.embeddingForward(table.values, tokens(), WIDTH));
    },
  },
  {
    name: "embedding backward",
    shape,
    quick: true,
    record: (bench, program) => {
      const { order, bucketIds, bucketStarts } = bucketRows(tokens(), ROWS);
      const dy = bench.normal([ROWS, WIDTH]);
      const dTable = bench.zeros(VOCABULARY, WIDTH);
      const upload = (values: Uint32Array) => bench.of([values.length], values as Uint32Array<ArrayBuffer>);
      program.dispatch(embeddingBackward, {
        dy: dy.tensor,
        order: upload(order),
        bucketIds: upload(bucketIds),
        bucketStarts: upload(bucketStarts),
        dTable,
        firstRow: 0,
      });
      return () => bench.expect("dTable", dTable, twin.embeddingBackward(dy.values, tokens(), VOCABULARY, WIDTH));
    },
  },
];

/** Half of the vocabulary is never seen, so that tokens come more than once. */
function tokens(): Uint32Array<ArrayBuffer> {
  const random = new Random(2);
  return Uint32Array.from({ length: ROWS }, () => random.below(VOCABULARY / 2));
}
