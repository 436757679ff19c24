/**
 * DoRA on a model: the gains m / n of the layers that have an adapter, kept as they are now, and what they change in
 * the passes of LoRA (`lora.ts`). The formulas are those of `src/kernels/dora.ts`; how dropout acts is PEFT's: what DoRA
 * adds to a base result, (gain - 1) x W^T + gain scale x A^T B^T, is of the inputs that dropout leaves, the base result
 * is of all of them. Without dropout the two are one product, scaled at its end.
 */
import { doraGains, magnitudePartials, rowSquares, scaleColumns, scaledColumns } from "../../kernels/dora.ts";
import { isQuantized, type WeightFormat } from "../../kernels/kernel.ts";
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums } from "../../kernels/reduce.ts";
import { Arena, ParameterLayout } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import { Program } from "../gpu/program.ts";
import {
  elementBytes,
  elementCount,
  quantizedAlignment,
  reshape,
  sliceRows,
  type Tensor,
  WINDOW_ALIGNMENT,
} from "../gpu/tensor.ts";
import type { LoraModule } from "./lora-modules.ts";
import { recordMatmul } from "./matmul.ts";
import { recordProduct, storedWindows, type Weight } from "./weight-product.ts";

/** Finds the base's parameters. */
export interface BaseWeights {
  parameter(name: string): Tensor;
}

/** A and B of a layer, and its magnitude. */
export interface DoraParts {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly magnitude: Tensor;
}

/** Scratch of DoRA's passes. */
export interface DoraScratch {
  /** [highest r, widest layer] and [highest r, highest r], of the norms. */
  readonly projected: Tensor;
  readonly gram: Tensor;
  /** [T, widest layer], in passes with dropout or gradients. */
  readonly product: Tensor | undefined;
}

/** Under which a layer's norms are kept: those of one fused matrix lie together, as wide as its result. */
function keyOf({ kind, parameter }: LoraModule): string {
  return kind === "linear" ? parameter : kind;
}

/** The widths of the results that the modules are parts of, by key. */
export function resultWidths(modules: readonly LoraModule[]): Map<string, number> {
  return new Map(modules.map((module) => [keyOf(module), module.width]));
}

/** Squares of the base's rows, which never change, and the gains that follow from an adapter as it is. */
export class DoraNorms {
  readonly device: Device;
  readonly #modules: readonly LoraModule[];
  readonly #squares: Arena;
  /** m / n of every column of a result, 1 where it has no adapter; and 1 / n. */
  readonly #gains: Arena;
  readonly #inverse: Arena;
  readonly #ownsSquares: boolean;

  constructor(device: Device, modules: readonly LoraModule[], sharesSquares?: DoraNorms) {
    this.device = device;
    this.#modules = modules;
    const specs = [...resultWidths(modules)].map(([name, width]) => {
      return { name, shape: [width], decay: false, parts: [{ name, shape: [width] }] };
    });
    const layout = new ParameterLayout(specs, { maxBufferBytes: device.bufferLimit });
    this.#squares = sharesSquares ? sharesSquares.#squares : new Arena(device, layout, "adapter", "squares of rows");
    this.#gains = new Arena(device, layout, "adapter", "gains");
    this.#inverse = new Arena(device, layout, "adapter", "inverse norms");
    this.#ownsSquares = sharesSquares === undefined;
    for (const gains of this.#gains.segments) device.upload(gains, new Float32Array(elementCount(gains.shape)).fill(1));
  }

  /** Computes the squares of the base's rows. */
  async read(base: BaseWeights): Promise<void> {
    const program = new Program(this.device, "squares of rows");
    this.#squares.recordClear(program);
    for (const module of new Map(this.#modules.map((one) => [keyOf(one), one])).values()) {
      const squares = this.#squares.window(keyOf(module));
      for (const { first, window } of storedWindows(program, base.parameter(module.parameter))) {
        program.dispatch(rowSquares(window.dtype as WeightFormat), {
          weight: window,
          squares,
          byColumn: module.inOut ? 1 : 0,
          first: module.inOut ? 0 : first,
        });
      }
    }
    await program.prepare();
    program.run();
    await this.device.idle();
    program.dispose();
  }

  /** |W_o| of a layer's outputs: its magnitude as PEFT starts it. */
  async lengths(module: LoraModule): Promise<Float32Array<ArrayBuffer>> {
    const all = await this.device.download(this.#squares.window(keyOf(module)));
    return all.slice(module.outFrom, module.outFrom + module.outputs).map(Math.sqrt);
  }

  /** Records the gains of a layer as the adapter is now. */
  recordGains(program: Program, base: BaseWeights, module: LoraModule, parts: DoraParts, scratch: DoraScratch): void {
    const { rank, outputs, scale, outFrom } = module;
    const { weight, slack } = boundRows(base, module);
    const projected = reshape(scratch.projected, [rank, slack + outputs]);
    const gram = reshape(scratch.gram, [rank, rank]);
    recordProduct(program, weight, parts.a, projected);
    recordMatmul(program, "NT", parts.a, parts.a, gram);
    program.dispatch(doraGains, {
      ...{ b: parts.b, projected, gram, squares: this.#squares.window(keyOf(module)), magnitude: parts.magnitude },
      ...{ gains: this.#gains.window(keyOf(module)), inverse: this.#inverse.window(keyOf(module)) },
      ...{ first: outFrom, projectedFrom: slack, scale },
    });
  }

  /** 1 / n of a whole result. */
  inverse(key: string): Tensor {
    return this.#inverse.window(key);
  }

  /** The gains of a whole result, under the name of its parameter, or "embedding" or "head". */
  gains(key: string): Tensor {
    return this.#gains.window(key);
  }

  /** Records y <- gains y (+ bias) (+ residual), the end of a layer without dropout. */
  recordEnd(
    program: Program,
    key: string,
    y: Tensor,
    { bias, residual }: { readonly bias?: Tensor | undefined; readonly residual?: Tensor | undefined },
  ): void {
    const { unused } = program.device;
    program.dispatch(scaleColumns, {
      gains: this.gains(key),
      bias: bias ?? reshape(unused, [4]),
      residual: residual ? reshape(residual, [elementCount(residual.shape)]) : reshape(unused, [4]),
      y,
      hasBias: bias ? 1 : 0,
      hasResidual: residual ? 1 : 0,
    });
  }

  /**
   * Records y += (gain - 1) dropped W^T + gain inner B^T of one layer, where inner is scale dropped A^T.
   */
  recordWithDropout(
    program: Program,
    base: BaseWeights,
    module: LoraModule,
    args: { readonly dropped: Tensor; readonly inner: Tensor; readonly b: Tensor; readonly y: Tensor },
    scratch: DoraScratch,
  ): void {
    const { dropped, inner, b, y } = args;
    const [rows = 0] = y.shape;
    const { outputs: columns, outFrom } = module;
    const { weight, slack } = boundRows(base, module);
    const ofBase = this.product(scratch, [rows, slack + columns]);
    const place = { gains: this.gains(keyOf(module)), y, first: outFrom, yFrom: outFrom, columns, accumulate: 1 };
    recordProduct(program, weight, dropped, ofBase);
    program.dispatch(scaledColumns, { ...place, x: ofBase, xFrom: slack, shift: 1 });
    const ofAdapter = this.product(scratch, [rows, columns]);
    recordMatmul(program, "NT", inner, b, ofAdapter);
    program.dispatch(scaledColumns, { ...place, x: ofAdapter, xFrom: 0, shift: 0 });
  }

  /**
   * Records the gradient of a layer's magnitude, from dy [T, width], the inputs that its adapter sees and inner =
   * scale x A^T [T, r].
   *
   * @param args.partials scratch of column sums
   */
  recordMagnitude(
    program: Program,
    base: BaseWeights,
    module: LoraModule,
    args: {
      readonly dy: Tensor;
      readonly x: Tensor;
      readonly inner: Tensor;
      readonly b: Tensor;
      readonly gradient: Tensor;
      readonly partials: Tensor;
    },
    scratch: DoraScratch,
  ): void {
    const { dy, x, inner, b, gradient, partials } = args;
    const [rows = 0] = dy.shape;
    const { outputs: columns } = module;
    const { weight, slack } = boundRows(base, module);
    const product = this.product(scratch, [rows, slack + columns]);
    recordProduct(program, weight, x, product);
    recordMatmul(program, "NT", inner, b, product, { accumulate: true, outFrom: slack });
    this.recordMagnitudeSum(program, module, { dy, product, slack, partials, gradient });
  }

  /** Records the gradient of a layer's magnitude from dy [T, width] and product [T, slack + outputs], x V^T. */
  recordMagnitudeSum(
    program: Program,
    module: LoraModule,
    args: {
      readonly dy: Tensor;
      readonly product: Tensor;
      readonly slack?: number;
      readonly partials: Tensor;
      readonly gradient: Tensor;
    },
  ): void {
    const { dy, product, slack = 0, partials, gradient } = args;
    const { outputs: columns, outFrom } = module;
    const sums = reshape(partials, [rowBlocks(dy.shape[0] ?? 0), columns]);
    program.dispatch(magnitudePartials, {
      ...{ inverse: this.#inverse.window(keyOf(module)), dy, product, partials: sums },
      ...{ columns, first: outFrom, xFrom: slack },
    });
    program.dispatch(addColumnSums, { partials: sums, out: gradient });
  }

  /**
   * Records (gains - shift) dy into scratch, of one layer or of the whole result: [T, slack + columns], `slack` columns
   * of zeros first.
   */
  recordScaled(
    program: Program,
    { key, from, columns }: { readonly key: string; readonly from: number; readonly columns: number },
    dy: Tensor,
    scratch: DoraScratch,
    { shift = 0, slack = 0 }: { readonly shift?: number; readonly slack?: number } = {},
  ): Tensor {
    const y = this.product(scratch, [dy.shape[0] ?? 0, slack + columns]);
    if (slack > 0) program.clear(y);
    const place = { first: from, xFrom: from, yFrom: slack, columns, shift, accumulate: 0 };
    program.dispatch(scaledColumns, { gains: this.gains(key), x: dy, y, ...place });
    return y;
  }

  /** Scratch of a product. */
  product({ product }: DoraScratch, shape: readonly number[]): Tensor {
    if (product === undefined) throw new Error("this memory has no room for DoRA's products");
    return reshape(product, shape);
  }

  free(): void {
    for (const arena of [this.#gains, this.#inverse]) arena.free();
    if (this.#ownsSquares) this.#squares.free();
  }
}

/**
 * The rows of a layer in its matrix, from the last one on that can be bound: `slack` rows before the layer's own.
 */
export function boundRows(base: BaseWeights, module: LoraModule): { readonly weight: Weight; readonly slack: number } {
  const { name, parameter, inOut, outFrom, outputs } = module;
  const whole = base.parameter(parameter);
  if (inOut) return { weight: { name, matrix: whole, inOut }, slack: 0 };
  const { dtype, shape } = whole;
  const aligned = isQuantized(dtype) ? quantizedAlignment(dtype) : WINDOW_ALIGNMENT / elementBytes(dtype);
  let step = 1;
  while ((step * (shape[1] ?? 1)) % aligned !== 0) step *= 2;
  const first = Math.floor(outFrom / step) * step;
  const slack = outFrom - first;
  return { weight: { name, matrix: sliceRows(whole, first, slack + outputs), inOut }, slack };
}
