/** The outer step of several ranks over an arena, against the same in float64 over whole parameters. */
import { expect, test } from "vitest";
import { Arena, ParameterLayout } from "../../../src/engine/gpu/arena.ts";
import { OuterStep } from "../../../src/engine/ranks/outer-step.ts";
import { piecesOfStages } from "../../../src/engine/ranks/pieces.ts";
import { type OuterState, outerStep } from "../../../src/kernels/float64/outer-step.ts";
import { arenaNumbers, arenaSize, fillArena } from "../../helpers/arenas.ts";
import { expectWithin, normals, seeded } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { localRanks } from "../../helpers/local-ranks.ts";

const device = await sharedDevice();
const specs = [
  { name: "a", shape: [40, 33], decay: true, parts: [] },
  { name: "b", shape: [65], decay: false, parts: [] },
  { name: "c", shape: [7, 128], decay: true, parts: [] },
];
const options = { learningRate: 0.7, momentum: 0.9 };

test.each([1, 3])("%d ranks make the step of float64, three times, and have the same bits", async (size) => {
  const layout = new ParameterLayout(specs);
  const pieces = piecesOfStages(layout, [["a", "b", "c"]], size, 2048).flat();
  const elements = arenaSize(layout);
  const start = normals(seeded(1), elements, 1);
  const changeOf = (rank: number, turn: number) => normals(seeded(10 * turn + rank + 2), elements, 0.01);
  const found = await Promise.all(
    localRanks(size).map(async (ranks) => {
      const arena = new Arena(device, layout, "weights", "weights");
      try {
        fillArena(arena, start);
        const outer = new OuterStep(ranks, arena, pieces, options);
        await outer.begin();
        const turns: { weights: Float32Array; own: Float32Array; norm: number }[] = [];
        for (let turn = 0; turn < 3; turn++) {
          const change = changeOf(ranks.rank, turn);
          const own = (await arenaNumbers(arena)).map((value, i) => value + (change[i] ?? 0));
          fillArena(arena, own);
          const norm = await outer.step();
          turns.push({ own, norm, weights: await arenaNumbers(arena) });
        }
        return turns;
      } finally {
        arena.free();
      }
    }),
  );
  let state: OuterState = { parameter: Float64Array.from(start), momentum: new Float64Array(elements) };
  for (let turn = 0; turn < 3; turn++) {
    const ranks = found.map((turns) => turns[turn]);
    const locals = ranks.map((one) => Float64Array.from(one?.own ?? []));
    const before = state;
    state = outerStep(before, locals, options);
    const mean = before.parameter.map((value, i) => value - locals.reduce((sum, own) => sum + (own[i] ?? 0), 0) / size);
    const norm = Math.sqrt(mean.reduce((sum, value) => sum + value * value, 0));
    for (const one of ranks) {
      expect(one?.weights).toEqual(ranks[0]?.weights);
      expect(Math.abs((one?.norm ?? 0) / norm - 1)).toBeLessThan(1e-5);
      // Weights of size 1 and momentum are rounded to f32 at each step.
      expectWithin("weights", one?.weights ?? [], state.parameter, (i) => {
        return 2 ** -22 * (turn + 1) * (1 + Math.abs(state.parameter[i] ?? 0));
      });
    }
  }
});
