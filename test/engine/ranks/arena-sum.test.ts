/** Gradient arenas of several ranks added up on the device, in pieces of any size. */
import { expect, test } from "vitest";
import { Arena, ParameterLayout } from "../../../src/engine/gpu/arena.ts";
import { Staging } from "../../../src/engine/gpu/staging.ts";
import { ArenaSum, gatherArena } from "../../../src/engine/ranks/arena-sum.ts";
import { piecesOfStages } from "../../../src/engine/ranks/pieces.ts";
import { arenaNumbers, arenaSize, fillArena } from "../../helpers/arenas.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { localRanks } from "../../helpers/local-ranks.ts";

const device = await sharedDevice();
const shapes: Readonly<Record<string, readonly number[]>> = {
  "layers.0.a": [7, 30],
  "layers.0.b": [5],
  "layers.1.a": [100, 11],
  "layers.1.b": [64],
  embedding: [33, 20],
};
const specs = Object.entries(shapes).map(([name, shape]) => ({ name, shape, decay: shape.length > 1, parts: [] }));
const stages = [["layers.1.a", "layers.1.b"], ["layers.0.a", "layers.0.b"], ["embedding"]];

test.each([
  ["in one piece", 2 ** 24, 2 ** 31, [false, false, true]],
  ["in pieces of 1 KiB, a parameter in several", 1024, 2 ** 31, [true, true, true]],
  ["over several buffers", 2 ** 24, 4096, [false, false, true]],
] as const)("arenas of three ranks are added up %s", async (_, pieceBytes, maxBufferBytes, begins) => {
  const layout = new ParameterLayout(specs, { maxBufferBytes });
  const size = arenaSize(layout);
  const numbersOf = (rank: number) => Float32Array.from({ length: size }, (_, i) => Math.sin(i + 1) * (rank + 1));
  const sums = localRanks(3).map(async (ranks) => {
    const arena = new Arena(device, layout, "gradients", "gradients");
    const pieces = piecesOfStages(layout, stages, 3, pieceBytes);
    const staging = new Staging(device);
    const sum = new ArenaSum(ranks, arena, pieces, staging);
    const shares = new ArenaSum(ranks, arena, pieces, staging, { scatters: true });
    expect(stages.map((_, stage) => sum.begins(stage))).toEqual(begins);
    const found: number[][] = [];
    // Twice: rank 1 begins at each stage, the others at the end.
    for (let turn = 0; turn < 2; turn++) {
      fillArena(arena, numbersOf(ranks.rank));
      if (ranks.rank === 1) stages.forEach((_, stage) => void sum.finished(stage));
      await sum.end();
      found.push([...(await arenaNumbers(arena))]);
    }
    // Each rank's slices alone, then those of all.
    fillArena(arena, numbersOf(ranks.rank));
    await shares.end();
    await gatherArena(ranks, arena, pieces.flat(), staging);
    found.push([...(await arenaNumbers(arena))]);
    staging.free();
    arena.free();
    return found;
  });
  const [first, second, third] = [0, 1, 2].map(numbersOf);
  const wanted = [
    ...Float32Array.from({ length: size }, (_, i) => (first?.[i] ?? 0) + (second?.[i] ?? 0) + (third?.[i] ?? 0)),
  ];
  for (const found of await Promise.all(sums)) expect(found).toEqual([wanted, wanted, wanted]);
});
