/**
 * A reference that follows the policy (TR-DPO's soft update, Gorbatovski et al. 2024):
 *
 *   reference <- share policy + (1 - share) reference
 *
 * One pass over a range of the parameter arena. When it runs is the run's matter (src/kto/run/reference-sync.ts).
 */
import { kernel } from "./kernel.ts";
import { elementwise, elementwiseGrid, inVectors } from "./wgsl.ts";

export const mix = inVectors(
  ({ n }) => [n],
  (lanes) =>
    kernel({
      name: "mix",
      read: { policy: `f32[n]${lanes.view}` },
      write: { reference: `f32[n]${lanes.view}` },
      uniforms: { n: "u32", share: "f32", rest: "f32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(i: u32) {
  reference[i] = u.share * policy[i] + u.rest * reference[i];
}
${elementwise("u.n / LANES")}`,
      grid: ({ n = 0 }) => elementwiseGrid(n / lanes.count),
      cost: ({ n = 0 }) => ({ flops: 3 * n, bytes: 12 * n }),
    }),
);
