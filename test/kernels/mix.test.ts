/** The mixture of reference and policy against its twin, in vectors and alone. */
import { expect, test } from "vitest";
import { Program } from "../../src/engine/gpu/program.ts";
import * as twin from "../../src/kernels/float64/mix.ts";
import { mix } from "../../src/kernels/mix.ts";
import { EPSILON, expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";

const device = await sharedDevice();

test.each([
  [64, 0.6],
  [7, 0.25],
  [300, 1],
])("%d numbers, a share of %d", async (n, share) => {
  const random = seeded(n);
  const values = { from: normals(random, n), to: normals(random, n) };
  const from = device.allocate("scratch", "from", [n]);
  const to = device.allocate("scratch", "to", [n]);
  device.upload(from, values.from);
  device.upload(to, values.to);
  const program = new Program(device, "mix");
  program.dispatch(mix, { policy: from, reference: to, share, rest: 1 - share });
  await program.prepare();
  program.run();
  const exact = twin.mix(float64(values.from), float64(values.to), share);
  const found = await device.download(to);
  // Three roundings: two products and their sum.
  const bound = (i: number) => 3 * EPSILON * (Math.abs(values.from[i] ?? 0) + Math.abs(values.to[i] ?? 0));
  expectWithin("mixture", found, exact, bound);
  if (share === 1) expect(found).toEqual(values.from);
  for (const tensor of [from, to]) device.free(tensor);
});
