/**
 * Log-probabilities of completions under one or two models, row by row: what `kto logps` prints. Uses the training
 * step's own forward pass, without mismatched pairs.
 */

import { Program } from "../../engine/gpu/program.ts";
import type { Tensor } from "../../engine/gpu/tensor.ts";
import { longRopeBeyond } from "../../engine/model/config/config.ts";
import { PassMemory, recordLogProbs } from "../../engine/model/decoder.ts";
import type { Model } from "../../engine/model/model.ts";
import { activationFormat, type Precision, productFormat } from "../../engine/model/precision.ts";
import { type PackedRows, packRows, type RowSequence, type RowShape, rowShape } from "../../engine/model/rows.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { sumOverRanks } from "../../engine/ranks/sums.ts";
import { ConfigError } from "../../errors.ts";
import { checkSequences } from "./batch.ts";

/**
 * log model(completion | prompt) in nats, summed over completion tokens, for each sequence in order.
 *
 * @param batchSize sequences computed at once
 * @param ranks that compute them together, each some batches; all get all
 * @throws DatasetError for a sequence that the model cannot take, ConfigError for a batch size that is no whole number
 * of at least 1, AdapterError for a batch that the adapter cannot hold
 */
export async function completionLogProbs(
  model: Model,
  sequences: readonly RowSequence[],
  batchSize = 8,
  ranks: Communicator = ALONE,
): Promise<Float64Array> {
  if (!Number.isInteger(batchSize) || batchSize < 1) {
    throw new ConfigError(`The batch size is ${batchSize}; it must be a whole number of at least 1.`);
  }
  const { contextLength, vocabSize } = model.config;
  checkSequences(sequences, vocabSize, { maxLength: contextLength, limit: "the model's context of" });
  const batches: RowSequence[][] = [];
  for (let first = 0; first < sequences.length; first += batchSize) {
    batches.push(sequences.slice(first, first + batchSize));
  }
  const result = new Float64Array(sequences.length);
  if (batches.length === 0) return result;
  const longBeyond = longRopeBeyond(model.config);
  const shapes = batches.map((batch) => rowShape(batch));
  const pass = new LogProbPass(model, shapes, "log-probs");
  try {
    for (const [index, batch] of batches.entries()) {
      if (index % ranks.size !== ranks.rank) continue;
      result.set(await pass.logProbs(packRows(batch, [], shapes[index], longBeyond)), index * batchSize);
    }
  } finally {
    pass.free();
  }
  return ranks.size === 1 ? result : await sumOverRanks(ranks, result); // every number is one rank's
}

/** Forward passes of one model over packed rows, in memory of its own: log-probabilities of their sequences. */
export class LogProbPass {
  readonly model: Model;
  readonly precision: Precision;
  readonly #name: string;
  readonly #shapes: readonly RowShape[];
  readonly #memory: PassMemory;
  readonly #sums: Tensor;
  readonly #programs = new Map<string, Program>();

  /**
   * @param shapes every class of rows that is run, or one that holds them all
   * @throws AdapterError for rows that the adapter cannot hold
   */
  constructor(model: Model, shapes: readonly RowShape[], name: string, precision: Precision = "f32") {
    const { device, config, adapter } = model;
    const largest = Math.max(...shapes.map(({ sequences }) => sequences));
    this.model = model;
    this.precision = precision;
    this.#name = name;
    this.#shapes = shapes;
    [this.#memory, this.#sums] = device.allocating(() => [
      new PassMemory(device, config, shapes, { gradients: false, format: activationFormat(precision), adapter }),
      device.allocate("scratch", name, [largest]),
    ]);
  }

  #recorded(shape: RowShape): Program {
    const program = new Program(this.model.device, this.#name, productFormat(this.precision));
    recordLogProbs(program, this.model, this.#memory, shape, this.#sumsOf(shape));
    return program;
  }

  #sumsOf({ sequences }: RowShape): Tensor {
    return { ...this.#sums, shape: [sequences] };
  }

  /** What runs for each class of rows, in order. */
  async kernels(): Promise<(readonly string[])[]> {
    const found: (readonly string[])[] = [];
    for (const shape of this.#shapes) {
      const program = this.#recorded(shape);
      await program.choose();
      found.push(program.kernels);
    }
    return found;
  }

  async logProbs(packed: PackedRows): Promise<Float32Array> {
    const key = JSON.stringify(packed.shape);
    const program = this.#programs.get(key) ?? this.#recorded(packed.shape);
    this.#programs.set(key, program);
    await program.prepare();
    this.#memory.upload(packed);
    program.run();
    return await this.model.device.download(this.#sumsOf(packed.shape));
  }

  free(): void {
    for (const program of this.#programs.values()) program.dispose();
    this.#memory.free();
    this.model.device.free(this.#sums);
  }
}
