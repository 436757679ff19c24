/** The gate of attention's output, and the rows that gates are taken out of and put into, against float64. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/output-gate.ts";
import { joinGates, outputGateBackward, outputGateForward, splitGates } from "../../src/kernels/output-gate.ts";
import { EPSILON, expError, expectWithin, normals, seeded, storedBound } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, unset, unsetAs } from "../helpers/gpu.ts";

const device = await sharedDevice();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

const shapes = fc.record({
  T: fc.constantFrom(1, 2, 7, 33),
  heads: fc.constantFrom(1, 2, 5),
  D: fc.constantFrom(1, 4, 8, 9),
  /** Columns of keys and values. */
  rest: fc.constantFrom(2, 8),
  seed: fc.nat(1e9),
});

describe.each(ACTIVATION_FORMATS)("the output gate, in %s", (format) => {
  it("gives what float64 gives, there and back", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, heads, D, rest, seed }) => {
        const random = seeded(seed);
        const [F, H] = [2 * heads * D + rest, heads * D];
        const fused = stored(format, [T, F], normals(random, T * F, 3));
        const x = stored(format, [T, H], normals(random, T * H));
        const dOut = normals(random, T * H);
        const { qkv, gate } = twin.splitGates(fused.values, heads, D, T);

        const split = await runKernel(device, splitGates, {
          ...{ fused: fused.array, qkv: unsetAs(format, T, F - H), D, heads },
        });
        expect([...split("qkv")]).toEqual([...qkv]);

        const forward = await runKernel(device, outputGateForward, {
          ...{ fused: fused.array, x: x.array, out: unsetAs(format, T, H), D, heads },
        });
        const errorAt = (i: number) => expError(at(gate, i)) + 6 * EPSILON;
        const out = twin.outputGateForward(x.values, gate);
        expectWithin("out", forward("out"), out, (i) =>
          storedBound(format, at(out, i), errorAt(i) * Math.abs(at(out, i)) + 1e-37),
        );

        const backward = await runKernel(device, outputGateBackward, {
          ...{ fused: fused.array, x: x.array, dOut: f32([T, H], dOut), dFused: unset(T, F), D, heads },
        });
        const wanted = twin.outputGateBackward(Float64Array.from(dOut), x.values, gate);
        expectWithin("dx", backward("dOut"), wanted.dx, (i) => errorAt(i) * Math.abs(at(wanted.dx, i)) + 1e-37);
        const gates = twin.splitGates(Float64Array.from(backward("dFused")), heads, D, T).gate;
        expectWithin("dGate", gates, wanted.dGate, (i) => 2 * errorAt(i) * Math.abs(at(wanted.dGate, i)) + 1e-37);

        const dQkv = normals(random, T * (F - H));
        const joined = await runKernel(device, joinGates, {
          ...{ dQkv: f32([T, F - H], dQkv), dFused: f32([T, F], backward("dFused")), D, heads },
        });
        const both = { qkv: Float64Array.from(dQkv), gate: gates };
        expect([...joined("dFused")]).toEqual([...twin.joinGates(both, heads, D, T)]);
      }),
      { seed: 91, numRuns: 10 },
    );
  });
});
