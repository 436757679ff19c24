/**
 * LoRA in float64, computed differently from the device: the adapter is merged into the weights, W' = W + scale B A,
 * and the gradients of A and B follow from that of W' by the chain rule, dA = scale B^T dW', dB = scale dW' A^T. No
 * dropout.
 */
import { add, at } from "../../../kernels/float64/elements.ts";
import { matmul } from "../../../kernels/float64/matmul.ts";
import type { LoraModule } from "../lora-modules.ts";
import type { Model } from "../model.ts";
import type { Float64Gradients, Float64Tensor } from "./decoder.ts";

/** A model's weights in float64 under their names in the weight files, its adapter merged into them. */
export async function float64Weights(model: Model): Promise<Map<string, Float64Tensor>> {
  const tensors = await model.readTensors(model.weights);
  const weights = new Map(
    tensors.map(({ name, shape, data }) => [name, { shape, data: Float64Array.from(data) }] as const),
  );
  const adapter = await float64Adapter(model);
  if (adapter === undefined) return weights;
  for (const { module, a, b } of adapter) {
    const delta = matmul({ a: b, b: a, m: module.outputs, n: module.inputs, k: module.rank });
    const weight = weights.get(weightName(model, module))?.data;
    if (weight === undefined) throw new Error(`the model has no ${module.name}`);
    eachElement(model, module, (place, row, column) => {
      add(weight, place, module.scale * at(delta, row * module.inputs + column));
    });
  }
  return weights;
}

/** The gradients of a model's adapter from those of its merged weights, under the names of `model.readTensors`. */
export async function adapterGradients(model: Model, gradients: Float64Gradients): Promise<Float64Gradients> {
  const result: Float64Gradients = new Map();
  for (const { module, a, b } of (await float64Adapter(model)) ?? []) {
    const { inputs, outputs, name, rank, scale } = module;
    const stored = gradients.get(weightName(model, module)) ?? new Float64Array(inputs * outputs);
    const dWeight = new Float64Array(inputs * outputs);
    eachElement(model, module, (place, row, column) => {
      dWeight[row * inputs + column] = scale * at(stored, place);
    });
    const dA = matmul({ a: b, b: dWeight, m: rank, n: inputs, k: outputs, transposeA: true });
    const dB = matmul({ a: dWeight, b: a, m: outputs, n: rank, k: inputs, transposeB: true });
    result.set(model.storedName(`${name}.lora_A.weight`), dA);
    result.set(model.storedName(`${name}.lora_B.weight`), dB);
  }
  return result;
}

interface Float64Module {
  readonly module: LoraModule;
  readonly a: Float64Array;
  readonly b: Float64Array;
}

async function float64Adapter(model: Model): Promise<Float64Module[] | undefined> {
  const { adapter } = model;
  if (adapter === undefined) return undefined;
  const parts = new Map((await model.readTensors(adapter.weights)).map(({ name, data }) => [name, data]));
  const values = (name: string) => Float64Array.from(parts.get(model.storedName(`${name}.weight`)) ?? []);
  return adapter.modules.map((module) => ({
    module,
    a: values(`${module.name}.lora_A`),
    b: values(`${module.name}.lora_B`),
  }));
}

function weightName(model: Model, module: LoraModule): string {
  return model.storedName(`${module.name}.weight`);
}

/** Visits every element of a layer's matrix with its place in the stored tensor, [out, in] or [in, out]. */
function eachElement(
  model: Model,
  { inputs, outputs }: LoraModule,
  visit: (place: number, row: number, column: number) => void,
): void {
  const { inOutWeights } = model.config;
  for (let row = 0; row < outputs; row++) {
    for (let column = 0; column < inputs; column++) {
      visit(inOutWeights ? column * outputs + row : row * inputs + column, row, column);
    }
  }
}
