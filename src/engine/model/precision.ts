/**
 * What a pass computes in: the formats of its activations in memory and of what its products multiply. Sums, weights,
 * gradients and moments are f32 in all of them.
 */
import type { ActivationFormat } from "../../kernels/kernel.ts";
import type { ProductFormat } from "../../kernels/matmul-variant.ts";

/**
 *   f32    f32 throughout
 *   fp16   activations are kept as f16
 *   bf16   activations are kept as f32
 *
 * In fp16 and bf16 products may round their operands to f16, where the adapter multiplies such matrices.
 */
export type Precision = "f32" | "fp16" | "bf16";

export const activationFormat = (precision: Precision): ActivationFormat => (precision === "fp16" ? "f16" : "f32");

export const productFormat = (precision: Precision): ProductFormat => (precision === "f32" ? "f32" : "f16");
