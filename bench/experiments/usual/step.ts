/**
 * A KTO update on the usual schedule, from the parts of our own engine: (x, y) and (x, y') are passes of their own,
 * each prompt is run twice by each model, and the head runs over all rows with its logits in memory. What packing and
 * the fused head save is the difference to `src/kto/method/update.ts`; for comparison only.
 */
import type { Device } from "../../../src/engine/gpu/device.ts";
import { AdamW, type AdamWOptions } from "../../../src/engine/gpu/optimizer.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import type { Tensor } from "../../../src/engine/gpu/tensor.ts";
import { PassMemory, positionLimit, recordLayers, recordLayersBackward } from "../../../src/engine/model/decoder.ts";
import { recordHeadRows, recordHeadRowsBackward } from "../../../src/engine/model/head.ts";
import type { Model } from "../../../src/engine/model/model.ts";
import { type PackedRows, packRows } from "../../../src/engine/model/rows.ts";
import { NO_SEQUENCE, sequenceSums } from "../../../src/kernels/log-softmax-gather.ts";
import { type BatchExample, packBatch } from "../../../src/kto/method/batch.ts";
import { KtoOnDevice } from "../../../src/kto/method/kto-on-device.ts";
import type { ObjectiveOptions } from "../../../src/kto/method/objective.ts";
import { UsualHead } from "./head.ts";

/** Whole sequences, in which every token but the first is predicted, though only completions count. */
function packWhole(
  sequences: readonly { promptIds: ArrayLike<number>; completionIds: ArrayLike<number> }[],
): PackedRows {
  const packed = packRows(
    sequences.map(({ promptIds, completionIds }) => {
      const ids = [...Array.from(promptIds), ...Array.from(completionIds)];
      return { promptIds: ids.slice(0, 1), completionIds: ids.slice(1) };
    }),
  );
  const sequenceRanges = packed.arrays.sequenceRanges.slice();
  const headSequences = packed.arrays.headSequences.slice();
  sequences.forEach(({ promptIds }, index) => {
    const start = sequenceRanges[2 * index] ?? 0;
    const completion = start + promptIds.length - 1;
    headSequences.fill(NO_SEQUENCE, start, completion);
    sequenceRanges[2 * index] = completion;
  });
  return { ...packed, arrays: { ...packed.arrays, sequenceRanges, headSequences } };
}

export class UsualStep {
  readonly device: Device;
  readonly objective: KtoOnDevice;
  readonly optimizer: AdamW;
  readonly #examples: readonly BatchExample[];
  readonly #own: PassMemory;
  readonly #pairs: PassMemory;
  readonly #head: UsualHead;
  readonly #sums: Tensor;
  readonly #gradients: Program;
  readonly #update: Program;

  constructor(args: {
    readonly policy: Model;
    readonly reference: Model;
    readonly examples: readonly BatchExample[];
    readonly objective: ObjectiveOptions;
    readonly optimizer: AdamWOptions;
  }) {
    const { policy, reference, examples } = args;
    this.device = policy.device;
    this.#examples = examples;
    const { own, pairs } = this.#pack();
    this.#own = new PassMemory(this.device, policy.config, [own.shape], { gradients: true });
    this.#pairs = new PassMemory(this.device, policy.config, [pairs.shape], { gradients: false });
    const headRows = Math.max(own.shape.gradientHeadRows, pairs.shape.gradientHeadRows);
    this.#head = new UsualHead(this.device, headRows, policy.config.vocabSize);
    const size = examples.length;
    this.#sums = this.device.allocate("scratch", "usual sums", [size]);
    this.objective = new KtoOnDevice(this.device, args.objective, size);
    this.optimizer = new AdamW(policy.weights, args.optimizer);

    const program = new Program(this.device, "usual schedule");
    this.optimizer.recordZeroGradients(program);
    for (const model of [reference, policy]) {
      const sums = model === policy ? this.objective.policyLogProbs(size) : this.objective.referenceLogProbs(size);
      this.#recordPass(program, model, this.#pairs, pairs, { ...sums, offset: sums.offset + 4 * size, shape: [size] });
      this.#recordPass(program, model, this.#own, own, { ...sums, shape: [size] });
    }
    this.objective.recordClearPairs(program);
    this.objective.recordPairs(program, size);
    this.objective.recordCoefficients(program, size, this.optimizer.stepNumbers);
    const pass = this.#own.headPass(program, policy, own.shape);
    const { rows, buffers: head } = pass;
    const normed = head.tensor("normed", [own.shape.gradientHeadRows, policy.config.hiddenSize]);
    this.#head.recordBackward(program, policy, this.optimizer.gradients, head, normed, {
      targets: rows.targets,
      sequences: rows.headSequences,
      coefficients: this.objective.coefficients(size),
    });
    recordHeadRowsBackward(pass, this.optimizer.gradients, this.#own.backward(own.shape));
    recordLayersBackward(program, policy, this.optimizer.gradients, this.#own, own.shape);
    this.#gradients = program;
    this.#update = new Program(this.device, "usual update");
    this.optimizer.recordStep(this.#update);
  }

  #pack() {
    const examples = this.#examples;
    const pairs = examples.map(({ promptIds }, i) => ({
      promptIds,
      completionIds: examples[(i + 1) % examples.length]?.completionIds ?? [],
    }));
    return { own: packWhole(examples), pairs: packWhole(pairs) };
  }

  /** Records a pass over `packed` and its log-probabilities per sequence into `sums`, which need not be aligned. */
  #recordPass(program: Program, model: Model, memory: PassMemory, packed: PackedRows, sums: Tensor): void {
    const { shape } = packed;
    const rows = memory.rows.tensors(shape);
    const passRows = { ...rows, positionLimit: positionLimit(shape) };
    const output = recordLayers(program, model, memory.activations, shape, passRows);
    const normed = recordHeadRows(memory.headPass(program, model, shape), output, rows.headRows);
    const logProbs = this.#head.recordForward(program, model, normed, rows.targets);
    program.dispatch(sequenceSums, { logProbs, ranges: rows.sequenceRanges, sums: this.#sums });
    program.copy(this.#sums, sums);
  }

  /** Gradients of the microbatch, without an update. */
  async gradients(learningRate: number): Promise<void> {
    await this.#gradients.prepare();
    await this.#update.prepare();
    this.optimizer.setStep(learningRate, 1);
    const { own, pairs } = this.#pack();
    this.#own.upload(own);
    this.#pairs.upload(pairs);
    this.objective.upload(packBatch(this.#examples, { mismatched: true, maxLength: Number.MAX_SAFE_INTEGER }));
    this.#gradients.run();
  }

  /** One update; returns as soon as the work is submitted. */
  async run(learningRate: number): Promise<void> {
    await this.gradients(learningRate);
    this.#update.run();
  }

  free(): void {
    for (const part of [this.#gradients, this.#update]) part.dispose();
    for (const part of [this.#own, this.#pairs, this.#head, this.objective, this.optimizer]) part.free();
    this.device.free(this.#sums);
  }
}
