/**
 * How many lanes a subgroup has. Kernels are written for one size. Adapters whose size varies (AMD RDNA 32 or 64,
 * Intel 8, 16 or 32) run a kernel at the size that its entry point pins, where they have the feature
 * `subgroup-size-control`; without it they get the base variants, which need no subgroups.
 */

/** What `adapter.info` tells of subgroups; 0 or absent where it tells nothing. */
export interface SubgroupRange {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
}

/** Lanes that kernels are built for, and whether their entry points must say so. */
export interface SubgroupSize {
  /** 0 where subgroups cannot be used. */
  readonly lanes: number;
  readonly pinned: boolean;
}

/**
 * Sizes to pin, the best first. 32 lanes are what most GPUs run natively, and what the tiles' rows and columns suit.
 */
const PREFERRED = [32, 16, 64, 8, 4] as const;

/** The sizes within an adapter's range, in the order in which they are tried. */
export function sizesWithin({ subgroupMinSize: least = 0, subgroupMaxSize: most = 0 }: SubgroupRange): number[] {
  return PREFERRED.filter((size) => size >= least && size <= most);
}

/** The text of a kernel with its size pinned; texts that do not use subgroups stay as they are. */
export function withPinnedSize(wgsl: string, lanes: number): string {
  if (!wgsl.includes("enable subgroups;")) return wgsl;
  return wgsl
    .replace("enable subgroups;", "enable subgroups;\nenable subgroup_size_control;")
    .replace("@compute ", `@compute @subgroup_size(${lanes}) `);
}

/**
 * The size that kernels of this device are built for. Where the range is one number it is that one; else the first that
 * a small pinned kernel compiles with.
 */
export async function chooseSubgroupSize(gpu: GPUDevice, range: SubgroupRange): Promise<SubgroupSize> {
  if (!gpu.features.has("subgroups")) return { lanes: 0, pinned: false };
  const { subgroupMinSize: least = 0, subgroupMaxSize: most = 0 } = range;
  if (least === most) return { lanes: least, pinned: false };
  if (!gpu.features.has("subgroup-size-control" as GPUFeatureName)) return { lanes: 0, pinned: false };
  for (const lanes of sizesWithin(range)) {
    if (await compiles(gpu, lanes)) return { lanes, pinned: true };
  }
  return { lanes: 0, pinned: false };
}

/** Whether the driver takes this size: a size within the range may still be refused when a pipeline is made. */
function compiles(gpu: GPUDevice, lanes: number): Promise<boolean> {
  const code = /* wgsl */ `enable subgroups;
@group(0) @binding(0) var<storage, read_write> total: array<u32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(local_invocation_index) lane: u32) { total[lane] = subgroupAdd(lane); }`;
  return makesPipeline(gpu, `subgroups of ${lanes}`, withPinnedSize(code, lanes));
}

/** Whether a driver makes a pipeline of this text. */
export async function makesPipeline(gpu: GPUDevice, label: string, code: string): Promise<boolean> {
  gpu.pushErrorScope("validation");
  const made = gpu
    .createComputePipelineAsync({
      layout: "auto",
      compute: { module: gpu.createShaderModule({ label, code }), entryPoint: "main" },
    })
    .then(
      () => true,
      () => false,
    );
  const [isMade, error] = await Promise.all([made, gpu.popErrorScope()]);
  return isMade && error === null;
}
