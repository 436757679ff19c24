/** Models of any small size with random weights, as Hugging Face folders: for what the fixtures are too small to show. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseModelConfig } from "../../src/engine/model/config.ts";
import { checkpointNaming, parameterSpecs } from "../../src/engine/model/parameters.ts";
import { Random } from "../../src/engine/random.ts";
import { writeSafetensors } from "../../src/engine/safetensors.ts";
import { elementCount } from "../../src/engine/tensor.ts";
import { normals } from "./compare.ts";

/** A config.json of a tiny Llama; `changes` replaces keys. */
export function llamaConfig(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: 120,
    hidden_size: 16,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    num_hidden_layers: 1,
    intermediate_size: 24,
    tie_word_embeddings: true,
    rope_theta: 10000,
    rms_norm_eps: 1e-5,
    max_position_embeddings: 64,
    hidden_act: "silu",
    bos_token_id: 1,
    eos_token_id: 2,
    ...changes,
  };
}

/** Writes a model of this configuration into a new folder under `parent`; returns the folder. */
export async function randomModel(
  parent: string,
  config: Readonly<Record<string, unknown>>,
  seed: number,
): Promise<string> {
  const folder = mkdtempSync(join(parent, "model-"));
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const parsed = parseModelConfig(JSON.stringify(config), join(folder, "config.json"));
  const random = new Random(seed);
  const prefix = parsed.modelType === "gpt2" ? "transformer." : "model.";
  const { fullName } = checkpointNaming(parsed, [prefix]);
  const tensors = parameterSpecs(parsed)
    .flatMap(({ parts }) => parts)
    .map(({ name, shape }) => {
      const isNorm = shape.length === 1 && name.endsWith("weight");
      const data = normals(random, elementCount(shape), isNorm ? 0.1 : 0.2);
      return { name: fullName(name), shape, data: isNorm ? data.map((value) => 1 + value) : data };
    });
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
  return folder;
}
