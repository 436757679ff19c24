/** How arenas are divided: every element belongs to one rank, whatever the sizes of parameters and pieces. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ParameterLayout } from "../../../src/engine/gpu/arena.ts";
import { PART_STEP, paddedSize } from "../../../src/engine/gpu/parts.ts";
import { partsOfRank, piecesOfStages } from "../../../src/engine/ranks/pieces.ts";

const parameter = fc.record({ rows: fc.integer({ min: 1, max: 40 }), columns: fc.integer({ min: 1, max: 300 }) });

test("every element of every parameter is one rank's, in parts that begin at whole blocks", () => {
  fc.assert(
    fc.property(
      fc.array(parameter, { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 9 }),
      fc.constantFrom(1024, 8192, 2 ** 24),
      fc.constantFrom(4096, 2 ** 31),
      (parameters, ranks, pieceBytes, maxBufferBytes) => {
        const specs = parameters.map(({ rows, columns }, i) => {
          return { name: `p${i}`, shape: i % 3 === 2 ? [columns] : [rows, columns], decay: i % 3 !== 2, parts: [] };
        });
        const layout = new ParameterLayout(specs, { maxBufferBytes });
        const stages = [["p0"], specs.slice(1).map(({ name }) => name)];
        const pieces = piecesOfStages(layout, stages, ranks, pieceBytes).flat();
        const owners = new Map(
          specs.map(({ name, shape }) => [name, new Array(shape.reduce((a, b) => a * b)).fill(0)]),
        );
        for (const piece of pieces) {
          expect(4 * piece.elements).toBeLessThanOrEqual(pieceBytes);
          expect(piece.cuts).toEqual(piece.cuts.toSorted((a, b) => a - b));
          for (let rank = 0; rank < ranks; rank++) {
            const parts = partsOfRank(piece, rank);
            const [first = 0, end = 0] = [piece.cuts[rank], piece.cuts[rank + 1]];
            expect(parts.reduce((sum, { size }) => sum + paddedSize(size), 0)).toBe(end - first);
            // No rank has much more than its share: a cut moves by half a step at most, or to the end of a parameter.
            expect(end - first).toBeLessThanOrEqual(piece.elements / ranks + 2 * PART_STEP);
            for (const { name, from, size } of parts) {
              expect(from % PART_STEP).toBe(0);
              for (let i = from; i < from + size; i++) (owners.get(name) ?? [])[i]++;
            }
          }
        }
        for (const counts of owners.values()) expect(counts.every((count) => count === 1)).toBe(true);
      },
    ),
    { numRuns: 60 },
  );
});
