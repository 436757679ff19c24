/**
 * A mixture of two sets of numbers, in place: to <- share from + (1 - share) to. It moves the reference towards the
 * policy (TR-DPO, Gorbatovski et al. 2024, soft update), over a range of the parameter arena in one pass.
 */
import { kernel } from "./kernel.ts";
import { elementwise, elementwiseGrid, inVectors } from "./wgsl.ts";

export const mix = inVectors(
  ({ n }) => [n],
  (lanes) =>
    kernel({
      name: "mix",
      read: { from: `f32[n]${lanes.view}` },
      write: { to: `f32[n]${lanes.view}` },
      uniforms: { n: "u32", share: "f32", rest: "f32" },
      wgsl: /* wgsl */ `${lanes.wgsl}
fn element(i: u32) {
  to[i] = u.share * from[i] + u.rest * to[i];
}
${elementwise("u.n / LANES")}`,
      grid: ({ n = 0 }) => elementwiseGrid(n / lanes.count),
      cost: ({ n = 0 }) => ({ flops: 3 * n, bytes: 12 * n }),
    }),
);
