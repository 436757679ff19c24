/**
 * Log-probabilities of completions under one or two models, row by row: what `kto logps` prints. Uses the training
 * step's own forward pass, without mismatched pairs.
 */
import type { Device } from "../../engine/gpu/device.ts";
import { Program } from "../../engine/gpu/program.ts";
import type { Tensor } from "../../engine/gpu/tensor.ts";
import { PassMemory, recordLogProbs } from "../../engine/model/decoder.ts";
import type { Model } from "../../engine/model/model.ts";
import { packRows, type RowSequence, type RowShape, rowShape } from "../../engine/model/rows.ts";
import { ConfigError } from "../../errors.ts";
import { checkSequences } from "./batch.ts";

/**
 * log model(completion | prompt) in nats, summed over completion tokens, for each sequence in order.
 *
 * @param batchSize sequences computed at once
 * @throws DatasetError for a sequence that the model cannot take, ConfigError for a batch size that is no whole number
 * of at least 1, AdapterError for a batch that the adapter cannot hold
 */
export async function completionLogProbs(
  model: Model,
  sequences: readonly RowSequence[],
  batchSize = 8,
): Promise<Float64Array> {
  if (!Number.isInteger(batchSize) || batchSize < 1) {
    throw new ConfigError(`The batch size is ${batchSize}; it must be a whole number of at least 1.`);
  }
  const { device } = model;
  const { contextLength, vocabSize } = model.config;
  checkSequences(sequences, vocabSize, { maxLength: contextLength, limit: "the model's context of" });
  const batches: RowSequence[][] = [];
  for (let first = 0; first < sequences.length; first += batchSize) {
    batches.push(sequences.slice(first, first + batchSize));
  }
  const result = new Float64Array(sequences.length);
  if (batches.length === 0) return result;
  const shapes = batches.map((batch) => rowShape(batch));
  const { memory, sums } = device.allocating(() => ({
    memory: new PassMemory(device, model.config, shapes, { gradients: false, adapter: model.adapter }),
    sums: device.allocate("scratch", "log-probs", [Math.min(batchSize, sequences.length)]),
  }));
  const programs = new Map<string, Program>();
  try {
    for (const [index, batch] of batches.entries()) {
      const shape = shapes[index] as RowShape;
      const key = JSON.stringify(shape);
      const target = { ...sums, shape: [batch.length] };
      const program = programs.get(key) ?? record(device, model, memory, shape, target);
      programs.set(key, program);
      await program.prepare();
      memory.upload(packRows(batch, [], shape));
      program.run();
      result.set(await device.download(target), index * batchSize);
    }
  } finally {
    for (const program of programs.values()) program.dispose();
    memory.free();
    device.free(sums);
  }
  return result;
}

function record(device: Device, model: Model, memory: PassMemory, shape: RowShape, sums: Tensor): Program {
  const program = new Program(device, "log-probs");
  recordLogProbs(program, model, memory, shape, sums);
  return program;
}
