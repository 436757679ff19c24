/**
 * The subgroup matrices that products may use on a device: read from what the adapter lists, taken only if the driver
 * compiles them. Dawn calls the feature experimental; its WGSL may still change, and then there are none.
 */
import { MATRICES } from "../../kernels/kernel.ts";
import { MATRIX_MEMORY } from "../../kernels/matmul-matrix-tile.ts";
import type { MatrixFacts } from "../../kernels/wgsl.ts";
import { makesPipeline, type SubgroupSize, withPinnedSize } from "./subgroup-size.ts";

export const MATRIX_FEATURE = "chromium-experimental-subgroup-matrix";

/** One entry of `GPUAdapterInfo.subgroupMatrixConfigs`, which the types of WebGPU do not have yet. */
export interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The shapes that an adapter lists; none where it has no matrices. */
export function matrixConfigs(info: GPUAdapterInfo): MatrixConfig[] {
  return [...((info as { subgroupMatrixConfigs?: Iterable<MatrixConfig> }).subgroupMatrixConfigs ?? [])];
}

/** Sides of a matrix that divide every tile's parts, the smallest of which are 16 x 16. */
const SIDES = [8, 16];

/**
 * The matrices that can be used among those that an adapter lists, with f32 sums, the best first: of f16, since they are
 * several times as fast as f32's, and the largest, which need the fewest loads; then those of f32.
 */
export function rankMatrices(configs: Iterable<MatrixConfig>): MatrixFacts[] {
  const usable = [...configs].filter(
    ({ componentType, resultComponentType, M, N, K }) =>
      (componentType === "f16" || componentType === "f32") &&
      resultComponentType === "f32" &&
      [M, N, K].every((side) => SIDES.includes(side)),
  );
  const rank = ({ componentType, M, N, K }: MatrixConfig) => (componentType === "f16" ? 1e6 : 0) + M * N * K;
  return usable
    .sort((a, b) => rank(b) - rank(a))
    .map(({ componentType, M, N, K }) => ({ component: componentType === "f16" ? "f16" : "f32", M, N, K }));
}

/** The matrices that kernels of this device are built for: the best that the driver compiles; undefined where none. */
export async function deviceMatrices(
  gpu: GPUDevice,
  info: GPUAdapterInfo,
  size: SubgroupSize,
): Promise<MatrixFacts | undefined> {
  if (size.lanes === 0 || !gpu.features.has(MATRIX_FEATURE as GPUFeatureName)) return undefined;
  if (gpu.limits.maxComputeWorkgroupStorageSize < MATRIX_MEMORY) return undefined;
  for (const matrices of rankMatrices(matrixConfigs(info))) {
    if (matrices.component === "f16" && !gpu.features.has("shader-f16")) continue;
    if (await compiles(gpu, matrices, size)) return matrices;
  }
  return undefined;
}

function compiles(
  gpu: GPUDevice,
  { component, M, N, K }: MatrixFacts,
  { lanes, pinned }: SubgroupSize,
): Promise<boolean> {
  const code = /* wgsl */ `enable subgroups;
enable ${MATRICES};
${component === "f16" ? "enable f16;" : ""}
@group(0) @binding(0) var<storage, read_write> numbers: array<f32>;
var<workgroup> left: array<${component}, ${M * K}>;
var<workgroup> right: array<${component}, ${K * N}>;
@compute @workgroup_size(${lanes})
fn main() {
  let a = subgroupMatrixLoad<subgroup_matrix_left<${component}, ${K}, ${M}>, row_major>(&left, 0u, ${K}u);
  let b = subgroupMatrixLoad<subgroup_matrix_right<${component}, ${N}, ${K}>, col_major>(&right, 0u, ${K}u);
  var sums: subgroup_matrix_result<f32, ${N}, ${M}>;
  sums = subgroupMatrixMultiplyAccumulate(a, b, subgroupMatrixScalarMultiply(sums, 2.0));
  subgroupMatrixStore<row_major>(&numbers, 0u, sums, ${N}u);
}`;
  return makesPipeline(gpu, "subgroup matrices", pinned ? withPinnedSize(code, lanes) : code);
}
