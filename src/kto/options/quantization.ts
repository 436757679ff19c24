/**
 * The options of a quantised base (QLoRA), under the names of TRL's ModelConfig and of transformers'
 * BitsAndBytesConfig. What the formats are is said in `src/kernels/kernel.ts`.
 */
import * as z from "zod";
import type { Precision } from "../../engine/model/precision.ts";
import type { Quantization } from "../../engine/model/weights/quantization.ts";
import { ConfigError } from "../../errors.ts";
import { DTYPE_ALIASES } from "./model.ts";
import { optionGroup } from "./option.ts";

const { option } = optionGroup("Quantised base");
const ONLY_NF4 = "is not implemented; nf4 is";

export const quantizationOptions = {
  load_in_4bit: option(z.boolean().default(false), {
    description:
      "keep the matrices of the linear layers in 4 bits (nf4, 0.56 bytes a weight), quantised while the model is loaded; training over them needs use_peft (QLoRA)",
  }),
  load_in_8bit: option(z.boolean().default(false), {
    description: "the same in 8 bits (blocks of 32 as ggml's q8_0, 1.06 bytes a weight)",
  }),
  bnb_4bit_quant_type: option(z.enum(["nf4"]).default("nf4"), {
    description: "the type of load_in_4bit",
    refused: { fp4: ONLY_NF4, int4: ONLY_NF4, af4: ONLY_NF4 },
  }),
  use_bnb_nested_quant: option(z.boolean().default(false), {
    description:
      "quantise the scales of load_in_4bit a second time, for the numbers that bitsandbytes has then; memory stays the same, since what they stand for is kept",
    aliases: ["bnb_4bit_use_double_quant"],
  }),
  bnb_4bit_compute_dtype: option(z.enum(["auto", "float32", "float16", "bfloat16"]).default("auto"), {
    description: "accepted and without effect: numbers are computed in float32, or as fp16 and bf16 say",
    valueAliases: DTYPE_ALIASES,
    nullMeans: "auto",
  }),
  quantize_embeddings: option(z.boolean().default(false), {
    description: "keep the embedding's and the head's matrix in 8 bits, which stay as the files have them otherwise",
  }),
};

export type QuantizationOptions = Readonly<z.output<z.ZodObject<typeof quantizationOptions>>>;

/**
 * How a model is quantised while it is loaded.
 *
 * @throws ConfigError for both of load_in_4bit and load_in_8bit
 */
export function quantizationOf(options: QuantizationOptions): Quantization {
  if (options.load_in_4bit && options.load_in_8bit) {
    throw new ConfigError("load_in_4bit and load_in_8bit are both true: keep one.");
  }
  return {
    format: options.load_in_4bit ? "nf4" : options.load_in_8bit ? "int8" : undefined,
    double: options.use_bnb_nested_quant,
    embeddings: options.quantize_embeddings,
  };
}

/**
 * Checks the options of quantisation for a command that trains: a quantised base is trained through an adapter alone.
 *
 * @throws ConfigError without an adapter
 */
export function checkQuantizedTraining(
  options: QuantizationOptions & { readonly use_peft: boolean; readonly adapter_name_or_path?: string | undefined },
  where: (name: string) => string = () => "",
): void {
  const { format, embeddings } = quantizationOf(options);
  if (options.use_peft || options.adapter_name_or_path !== undefined) return;
  const asked =
    format === "nf4"
      ? "load_in_4bit"
      : format === "int8"
        ? "load_in_8bit"
        : embeddings
          ? "quantize_embeddings"
          : undefined;
  if (asked === undefined) return;
  throw new ConfigError(
    `option "${asked}"${where(asked)} quantises the weights, and weights that are quantised cannot be trained whole: set use_peft to train a LoRA adapter over them, or leave it out.`,
  );
}

const COMPUTED = {
  f32: "in float32",
  fp16: "in float32 from activations in float16, as fp16 says",
  bf16: "in float32, or from operands in 16 bits where the adapter has matrices for them, as bf16 says",
} as const;

/** A sentence on what a run computes in, where bnb_4bit_compute_dtype asks for something. */
export function computeNote({ bnb_4bit_compute_dtype: asked }: QuantizationOptions, precision: Precision) {
  if (asked === "auto") return undefined;
  return `bnb_4bit_compute_dtype ${asked} has no effect: products are computed ${COMPUTED[precision]}.`;
}
