/** Models of any shape with random weights, as Hugging Face folders: what a benchmark, or a test, trains. */

import { writeSafetensors } from "../src/engine/files/safetensors.ts";
import { elementCount } from "../src/engine/gpu/tensor.ts";
import { parseModelConfig } from "../src/engine/model/config/config.ts";
import { checkpointNaming, parameterSpecs } from "../src/engine/model/weights/parameters.ts";
import { platform } from "../src/engine/platform/index.ts";
import { Random } from "../src/engine/random.ts";
import { normals } from "./measure/case.ts";

/**
 * Writes `config.json` and `model.safetensors` into a folder; matrices are N(0, 0.2^2), norm weights 1 + N(0, 0.1^2).
 */
export async function writeRandomModel(
  folder: string,
  config: Readonly<Record<string, unknown>>,
  seed: number,
): Promise<void> {
  await platform.makeFolder(folder);
  const configFile = platform.joinPath(folder, "config.json");
  const text = JSON.stringify(config);
  await platform.writeFileAtomic(configFile, text);
  const parsed = parseModelConfig(text, configFile);
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
  await writeSafetensors(platform.joinPath(folder, "model.safetensors"), tensors, { format: "pt" });
}
