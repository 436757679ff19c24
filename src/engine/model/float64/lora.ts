/**
 * LoRA and DoRA in float64, computed differently from the device: the adapter is merged into the weights,
 * W' = W + scale B A or, with DoRA, (m / n) (W + scale B A), and the gradients of A, B and m follow from that of W' by
 * the chain rule. No dropout.
 */
import { type DoraLayer, doraBackward, doraWeight } from "../../../kernels/float64/dora.ts";
import { at } from "../../../kernels/float64/elements.ts";
import { magnitudeName } from "../lora.ts";
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
  for (const part of adapter) {
    const { module } = part;
    const weight = weights.get(weightName(model, module))?.data;
    if (weight === undefined) throw new Error(`the model has no ${module.name}`);
    const merged = doraWeight(layerOf(part, weight));
    eachElement(module, (place, row, column) => {
      weight[place] = at(merged, row * module.inputs + column);
    });
  }
  return weights;
}

/** The gradients of a model's adapter from those of its merged weights, under the names of `model.readTensors`. */
export async function adapterGradients(model: Model, gradients: Float64Gradients): Promise<Float64Gradients> {
  const result: Float64Gradients = new Map();
  const base = await float64Weights(model.base);
  for (const part of (await float64Adapter(model)) ?? []) {
    const { module } = part;
    const { inputs, outputs, name } = module;
    const weight = base.get(weightName(model, module))?.data ?? new Float64Array(inputs * outputs);
    const stored = gradients.get(weightName(model, module)) ?? new Float64Array(inputs * outputs);
    const { dA, dB, dMagnitude } = doraBackward(layerOf(part, weight), rowsOf(module, stored));
    result.set(model.storedName(`${name}.lora_A.weight`), dA);
    result.set(model.storedName(`${name}.lora_B.weight`), dB);
    if (part.magnitude) result.set(model.storedName(magnitudeName(name)), dMagnitude);
  }
  return result;
}

interface Float64Module {
  readonly module: LoraModule;
  readonly a: Float64Array;
  readonly b: Float64Array;
  /** With DoRA. */
  readonly magnitude: Float64Array | undefined;
}

async function float64Adapter(model: Model): Promise<Float64Module[] | undefined> {
  const { adapter } = model;
  if (adapter === undefined) return undefined;
  const parts = new Map((await model.readTensors(adapter.weights)).map(({ name, data }) => [name, data]));
  const values = (name: string) => Float64Array.from(parts.get(model.storedName(name)) ?? []);
  return adapter.modules.map((module) => ({
    module,
    a: values(`${module.name}.lora_A.weight`),
    b: values(`${module.name}.lora_B.weight`),
    magnitude: adapter.options.dora ? values(magnitudeName(module.name)) : undefined,
  }));
}

/** A module over its base's weight as the weight files store it. */
function layerOf({ module, a, b, magnitude }: Float64Module, stored: Float64Array): DoraLayer {
  const { inputs, outputs, rank, scale } = module;
  return { weight: rowsOf(module, stored), a, b, magnitude, inputs, outputs, rank, scale };
}

/** A matrix as [out, in]. */
function rowsOf(module: LoraModule, stored: Float64Array): Float64Array {
  const rows = new Float64Array(stored.length);
  eachElement(module, (place, row, column) => {
    rows[row * module.inputs + column] = at(stored, place);
  });
  return rows;
}

function weightName(model: Model, module: LoraModule): string {
  return model.storedName(`${module.name}.weight`);
}

/** Visits every element of a layer's matrix with its place in the stored tensor, [out, in] or [in, out]. */
function eachElement(
  { inputs, outputs, inOut }: LoraModule,
  visit: (place: number, row: number, column: number) => void,
): void {
  for (let row = 0; row < outputs; row++) {
    for (let column = 0; column < inputs; column++) {
      visit(inOut ? column * outputs + row : row * inputs + column, row, column);
    }
  }
}
