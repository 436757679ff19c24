/**
 * A whole model of a base and a LoRA adapter, W + scale B A, made on the host from the files of both: no device is
 * needed, and one tensor at a time is in memory.
 */
import { isQuantized, type StoredFormat } from "../../kernels/kernel.ts";
import type { ModelConfig } from "./config/config.ts";
import { DTYPE_NAMES, readModelConfig, writeCompanions, writeTokenizerFiles } from "./config/folder.ts";
import type { LoraModule } from "./lora-modules.ts";
import { type AdapterFile, openAdapter } from "./peft-tensors.ts";
import { checkTensors, ignoredHead } from "./weights/check-tensors.ts";
import { parameterSpecs, tensorName } from "./weights/parameters.ts";
import { leftSentence, type Quantization, quantizedPieces, weightFormats } from "./weights/quantization.ts";
import { openWeights, writeWeights } from "./weights/weight-files.ts";
import { checkedTensor, finitePieces, storedPieces } from "./weights/weight-transfer.ts";

export interface MergeOptions {
  /**
   * Numbers in the files; default: as the base model's files store them, f32 where these differ, and bf16 for a base
   * that is quantised.
   */
  readonly dtype?: StoredFormat;
  /**
   * How the base was quantised when the adapter was trained: its numbers are then what the quantised ones stand for.
   */
  readonly quantization?: Quantization | undefined;
  readonly maxShardBytes?: number;
  /** Takes sentences on tensors that are left out, and on a base that is quantised; default console.warn. */
  readonly onWarning?: (sentence: string) => void;
}

/**
 * Writes base + adapter as a whole model: W + scale B A for the adapter's layers, the other tensors as they are, with
 * the adapter's tokenizer files before the base's. Runs on the host, tensor by tensor; no device is needed.
 *
 * @throws ModelFormatError for a base or adapter that cannot be used or do not fit each other; FileError; NumericError
 */
export async function mergeAdapter(
  baseFolder: string,
  adapterFolder: string,
  outFolder: string,
  { dtype, quantization = {}, maxShardBytes, onWarning = console.warn }: MergeOptions = {},
): Promise<void> {
  const config = await readModelConfig(baseFolder);
  const base = await openWeights(baseFolder);
  try {
    const { prefix, stored } = checkTensors(config, base);
    const adapter = await openAdapter(adapterFolder, { config, folder: baseFolder }, onWarning);
    try {
      const headWarning = await ignoredHead(config, base);
      if (headWarning !== undefined) onWarning(headWarning);
      const modules = new Map(adapter.modules.map((module) => [module.name, module]));
      const fullName = (part: string) => tensorName(prefix, part);
      const { formats, left } = weightFormats(config, base, fullName, quantization);
      const leftWarning = leftSentence(left, base.path);
      if (leftWarning !== undefined) onWarning(leftWarning);
      const format = dtype ?? (formats.size > 0 ? "bf16" : stored);
      if (formats.size > 0) {
        onWarning(
          `The base ${baseFolder} is quantised: the merged model is written as ${DTYPE_NAMES[format]}, from the numbers that its codes stand for.`,
        );
      }
      const basePieces = (parameter: string, name: string) => {
        const to = formats.get(parameter);
        if (to === undefined || !isQuantized(to) || checkedTensor(base, name).saved) return storedPieces(base, name);
        return quantizedPieces(base, name, { format: to, double: quantization.double ?? false, dtype: stored });
      };
      const tensors = parameterSpecs(config).flatMap(({ name: parameter, parts }) =>
        parts.map(({ name: part, shape }) => {
          const name = fullName(part);
          const module = modules.get(part.replace(/\.weight$/, ""));
          const pieces = module
            ? () => mergedWeight(basePieces(parameter, name), adapter, config, module)
            : () => basePieces(parameter, name);
          return {
            name,
            shape,
            format,
            data: () => finitePieces(name, pieces(), format, "base and adapter overflow f32 together"),
          };
        }),
      );
      await writeCompanions(baseFolder, outFolder, format);
      // What the adapter was trained with goes before what the base came with.
      await writeTokenizerFiles(adapterFolder, outFolder);
      await writeWeights(outFolder, tensors, maxShardBytes);
    } finally {
      await adapter.close();
    }
  } finally {
    await base.close();
  }
}

/** W + scale B A of one layer; W is [out, in], or [in, out] in GPT-2. Sums in float64. */
async function* mergedWeight(
  base: AsyncIterable<Float32Array<ArrayBuffer>>,
  adapter: AdapterFile,
  config: ModelConfig,
  { name: module, inputs, outputs, rank, scale }: LoraModule,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const a = await adapter.read(`${module}.lora_A.weight`);
  const b = await adapter.read(`${module}.lora_B.weight`);
  const delta = new Float64Array(inputs);
  const weight = new Float32Array(inputs * outputs);
  let filled = 0;
  for await (const piece of base) {
    weight.set(piece, filled);
    filled += piece.length;
  }
  const [rowStride, columnStride] = config.inOutWeights ? [1, outputs] : [inputs, 1];
  for (let row = 0; row < outputs; row++) {
    delta.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = scale * (b[row * rank + r] ?? 0);
      for (let i = 0; i < inputs; i++) delta[i] = (delta[i] as number) + factor * (a[r * inputs + i] as number);
    }
    for (let i = 0; i < inputs; i++) {
      const at = row * rowStride + i * columnStride;
      weight[at] = (weight[at] as number) + (delta[i] as number);
    }
  }
  yield weight;
}
