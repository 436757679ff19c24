/**
 * LoRA and DoRA in float64, computed differently from the device: the adapter is merged into the weights,
 * W' = W + scale B A or, with DoRA, (m / n) (W + scale B A), and the gradients of A, B and m follow from that of W' by
 * the chain rule. No dropout.
 */
import { type DoraLayer, doraBackward, doraWeight } from "../../../kernels/float64/dora.ts";
import { at } from "../../../kernels/float64/elements.ts";
import { basePart, partNames } from "../adapter-specs.ts";
import type { LoraAdapter } from "../lora.ts";
import type { LoraModule } from "../lora-modules.ts";
import type { Model } from "../model.ts";
import { type Float64Gradients, Float64Model, type Float64Tensor } from "./decoder.ts";

/** A model in float64, its adapter merged into it. */
export async function float64Model(model: Model): Promise<Float64Model> {
  return new Float64Model(model.computedConfig, await float64Weights(model));
}

/** A model's weights in float64 under their names in the weight files, its adapter merged into them. */
export async function float64Weights(model: Model): Promise<Map<string, Float64Tensor>> {
  const { adapter } = model;
  const weights = await baseWeights(model);
  if (adapter === undefined) return weights;
  const tensors = new Map((await model.readTensors(adapter.weights)).map((tensor) => [tensor.name, tensor]));
  for (const part of adapter.saved.parts) {
    const name = model.storedName(part);
    const { shape = [], data = [] } = tensors.get(name) ?? {};
    weights.set(name, { shape, data: Float64Array.from(data) });
  }
  for (const part of float64Modules(model, adapter, tensors)) {
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

/** The base's weights; a head that is tied stands beside the embedding where an adapter parts them. */
async function baseWeights(model: Model): Promise<Map<string, Float64Tensor>> {
  const weights = new Map(
    (await model.readTensors(model.weights)).map(
      ({ name, shape, data }) => [name, { shape, data: Float64Array.from(data) }] as const,
    ),
  );
  const head = model.storedName("lm_head.weight");
  const embedding = weights.get(model.storedName(basePart(model.config, "lm_head.weight")));
  if (model.adapter?.unties && embedding) weights.set(head, { ...embedding, data: embedding.data.slice() });
  return weights;
}

/**
 * The gradients of all that a model's adapter trains from those of its merged weights, under the names of
 * `model.readTensors`. What is not trained of a parameter that is in part has none.
 */
export async function adapterGradients(model: Model, gradients: Float64Gradients): Promise<Float64Gradients> {
  const result: Float64Gradients = new Map();
  const { adapter } = model;
  if (adapter === undefined) return result;
  const base = await baseWeights(model);
  for (const part of adapter.saved.parts) {
    const name = model.storedName(part);
    const gradient = gradients.get(name);
    if (gradient) result.set(name, gradient);
  }
  const tensors = new Map((await model.readTensors(adapter.weights)).map((tensor) => [tensor.name, tensor]));
  for (const part of float64Modules(model, adapter, tensors)) {
    const { module } = part;
    const weight = base.get(weightName(model, module))?.data ?? new Float64Array(module.inputs * module.outputs);
    const stored = gradients.get(weightName(model, module)) ?? new Float64Array(weight.length);
    const { dA, dB, dMagnitude } = doraBackward(layerOf(part, weight), rowsOf(module, stored));
    const { file, magnitude } = partNames(module);
    result.set(model.storedName(file.a), dA);
    result.set(model.storedName(file.b), dB);
    if (part.magnitude) result.set(model.storedName(magnitude), dMagnitude);
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

function float64Modules(
  model: Model,
  adapter: LoraAdapter,
  tensors: ReadonlyMap<string, { readonly data: Float32Array }>,
): Float64Module[] {
  const values = (name: string) => Float64Array.from(tensors.get(model.storedName(name))?.data ?? []);
  return adapter.modules.map((module) => {
    const { file, magnitude } = partNames(module);
    const own = adapter.options.dora ? values(magnitude) : undefined;
    return { module, a: values(file.a), b: values(file.b), magnitude: own };
  });
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
