/**
 * TensorFlow.js on WebGPU, tfjs-core with tfjs-backend-webgpu, in its own process: matmuls, and the head as a
 * product, log-sum-exp and lookup, with its gradients by autograd.
 */
import { createRequire } from "node:module";
import type * as Tf from "@tensorflow/tfjs-core";
import { headInputs } from "../kernels/log-softmax-gather.ts";
import { matmulInputs } from "../kernels/matmul.ts";
import type { PeerWork } from "../measure/peer-work.ts";
import { answer, type PeerRun } from "./answer.ts";

/** The part of the backend that submits what has been recorded. */
interface Backend {
  endComputePassEncoder(): void;
  submitQueue(): void;
  /** null where everything was submitted already. */
  readonly commandEncoder: unknown;
  readonly queue: GPUQueue;
}

await answer(async (work: PeerWork): Promise<PeerRun | undefined> => {
  // Its ES modules lack the file extensions that Node wants, and its CommonJS bundle the gradients.
  const require = createRequire(import.meta.url);
  const tf = require("@tensorflow/tfjs-core") as typeof Tf;
  require("@tensorflow/tfjs-core/dist/register_all_gradients");
  require("@tensorflow/tfjs-backend-webgpu");
  if (!(await tf.setBackend("webgpu"))) throw new Error("the WebGPU backend did not start");
  await tf.ready();
  const backend = tf.backend() as unknown as Backend;

  const runOf = (compute: () => Tf.Tensor[], check: (outputs: Float32Array[]) => void): PeerRun => ({
    check: async () => {
      const outputs = tf.tidy(compute);
      check((await Promise.all(outputs.map((output) => output.data()))) as Float32Array[]);
      tf.dispose(outputs);
    },
    submit: () => {
      tf.dispose(tf.tidy(compute));
      backend.endComputePassEncoder();
      if (backend.commandEncoder !== null) backend.submitQueue();
    },
    queue: backend.queue,
  });

  if (work.kind === "matmul") {
    const { a, b, aShape, bShape, check } = matmulInputs(work);
    const [x, y] = [tf.tensor2d(a, [...aShape]), tf.tensor2d(b, [...bShape])];
    return runOf(
      () => [tf.matMul(x, y, work.layout === "TN", work.layout === "NT")],
      ([out]) => check(out ?? []),
    );
  }
  if (work.kind === "head") {
    const inputs = headInputs(work);
    const hidden = tf.tensor2d(inputs.hidden, [work.rows, work.width]);
    const table = tf.tensor2d(inputs.table, [work.vocabulary, work.width]);
    const targets = tf.tensor1d(Int32Array.from(inputs.targets), "int32");
    const coefficients = tf.tensor1d(inputs.coefficients);
    const logProbs = (h: Tf.Tensor2D, t: Tf.Tensor2D) => {
      const chosen = tf.sum(tf.mul(h, tf.gather(t, targets)), 1);
      return tf.sub(chosen, tf.logSumExp(tf.matMul(h, t, false, true), 1));
    };
    if (!work.backward) {
      return runOf(
        () => [logProbs(hidden, table)],
        ([found]) => inputs.checkForward(found ?? []),
      );
    }
    const loss = (h: Tf.Tensor, t: Tf.Tensor) =>
      tf.sum(tf.mul(coefficients, logProbs(h as Tf.Tensor2D, t as Tf.Tensor2D))) as Tf.Scalar;
    const gradients = tf.grads(loss);
    return runOf(
      () => gradients([hidden, table]),
      ([dHidden, dTable]) => inputs.checkBackward(dHidden ?? [], dTable ?? []),
    );
  }
  return undefined;
});
