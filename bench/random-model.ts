/** Models of any shape with random weights, as Hugging Face folders: what a benchmark, or a test, trains. */
import { writeSafetensors } from "../src/engine/files/safetensors.ts";
import { elementCount } from "../src/engine/gpu/tensor.ts";
import { parseModelConfig } from "../src/engine/model/config/config.ts";
import { modulePrefix, parameterSpecs, storedNaming } from "../src/engine/model/weights/parameters.ts";
import { writeWeights } from "../src/engine/model/weights/weight-files.ts";
import { platform } from "../src/engine/platform/index.ts";
import { Random } from "../src/engine/random.ts";
import { normals } from "./measure/case.ts";

/** Numbers of a large model that are drawn; longer tensors repeat them. */
const TABLE_LENGTH = 2 ** 22;
/** Bytes of a shard of a large model. */
const SHARD_BYTES = 500e6;

/** Writes the folder's `config.json`; the tensors to go beside it, their shapes and the names of their file. */
async function beginFolder(folder: string, config: Readonly<Record<string, unknown>>) {
  await platform.makeFolder(folder);
  const configFile = platform.joinPath(folder, "config.json");
  const text = JSON.stringify(config, null, 2);
  await platform.writeFileAtomic(configFile, text);
  const parsed = parseModelConfig(text, configFile);
  const { fullName } = storedNaming(parsed, [modulePrefix(parsed)]);
  const parts = parameterSpecs(parsed).flatMap((spec) => spec.parts);
  return parts.map(({ name, shape }) => ({ name: fullName(name), shape }));
}

/**
 * Writes `config.json` and `model.safetensors` into a folder; matrices are N(0, 0.2^2), norm weights 1 + N(0, 0.1^2).
 */
export async function writeRandomModel(
  folder: string,
  config: Readonly<Record<string, unknown>>,
  seed: number,
): Promise<void> {
  const random = new Random(seed);
  const tensors = (await beginFolder(folder, config)).map(({ name, shape }) => {
    const isNorm = shape.length === 1 && name.endsWith("weight");
    const data = normals(random, elementCount(shape), isNorm ? 0.1 : 0.2);
    return { name, shape, data: isNorm ? data.map((value) => 1 + value) : data };
  });
  await writeSafetensors(platform.joinPath(folder, "model.safetensors"), tensors, { format: "pt" });
}

/**
 * Writes a model of hundreds of millions of parameters in seconds: matrices in bf16, N(0, 0.02^2), norm weights 1,
 * biases too, in shards of 500 MB. Drawing every number would take minutes, so matrices are pieces of one table of
 * normal numbers; no tensor is wholly in memory.
 */
export async function writeLargeRandomModel(
  folder: string,
  config: Readonly<Record<string, unknown>>,
  seed: number,
): Promise<void> {
  const random = new Random(seed);
  const table = normals(random, TABLE_LENGTH, 0.02);
  const tensors = (await beginFolder(folder, config)).map(({ name, shape }) => ({
    name,
    shape,
    format: "bf16" as const,
    data: async function* () {
      for (let left = elementCount(shape); left > 0; left -= TABLE_LENGTH) {
        const size = Math.min(left, TABLE_LENGTH);
        if (shape.length === 1) {
          yield new Float32Array(size).fill(1);
          continue;
        }
        // The table from a random place on, and its beginning behind its end.
        const from = random.below(TABLE_LENGTH);
        const piece = new Float32Array(size);
        const tail = table.subarray(from, from + size);
        piece.set(tail);
        piece.set(table.subarray(0, size - tail.length), tail.length);
        yield piece;
      }
    },
  }));
  await writeWeights(folder, tensors, SHARD_BYTES);
}
