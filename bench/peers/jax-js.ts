/**
 * jax-js on WebGPU in its own process: matmuls, the head with its gradients, and the whole KTO update, all
 * under jit. An argument is consumed where it is used; `.ref` keeps it.
 */
import { defaultDevice, getWebGPUDevice, init, jit, nn, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { headInputs } from "../kernels/log-softmax-gather.ts";
import { matmulInputs } from "../kernels/matmul.ts";
import type { PeerWork } from "../measure/peer-work.ts";
import { answer, type PeerRun } from "./answer.ts";
import { stepRun } from "./jax-js-step.ts";

// jax-js maps and filters iterators, which Node does from version 22 on.
const iterators = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())) as Record<string, unknown>;
iterators.map ??= function* <T, U>(this: Iterable<T>, of: (value: T) => U) {
  for (const value of this) yield of(value);
};
iterators.filter ??= function* <T>(this: Iterable<T>, keeps: (value: T) => boolean) {
  for (const value of this) if (keeps(value)) yield value;
};

await answer(async (work: PeerWork): Promise<PeerRun | undefined> => {
  if (!(await init("webgpu")).includes("webgpu")) throw new Error("the WebGPU backend did not start");
  defaultDevice("webgpu");
  if (work.kind === "step") return await stepRun(work, getWebGPUDevice().queue);

  const runOf = (compute: () => np.Array[], check: (outputs: Float32Array[]) => void): PeerRun => ({
    check: async () => check((await Promise.all(compute().map((output) => output.data()))) as Float32Array[]),
    submit: () => {
      for (const output of compute()) output.gpuBufferSync(); // submits what is pending, and lets go of the result
    },
    queue: getWebGPUDevice().queue,
  });

  if (work.kind === "matmul") {
    const { a, b, aShape, bShape, check } = matmulInputs(work);
    const [x, y] = [np.array(a).reshape([...aShape]), np.array(b).reshape([...bShape])];
    const product = jit((x: np.Array, y: np.Array) =>
      np.matmul(work.layout === "TN" ? x.transpose() : x, work.layout === "NT" ? y.transpose() : y),
    );
    return runOf(
      () => [product(x.ref, y.ref)],
      ([out]) => check(out ?? []),
    );
  }
  const inputs = headInputs(work);
  const hidden = np.array(inputs.hidden).reshape([work.rows, work.width]);
  const table = np.array(inputs.table).reshape([work.vocabulary, work.width]);
  const targets = np.array(Int32Array.from(inputs.targets));
  const coefficients = np.array(inputs.coefficients);
  const logProbs = (h: np.Array, t: np.Array, ids: np.Array) => {
    const chosen = h.ref.mul(np.take(t.ref, ids, 0)).sum(1);
    return chosen.sub(nn.logsumexp(np.matmul(h, t.transpose()), 1));
  };
  if (!work.backward) {
    const forward = jit(logProbs);
    return runOf(
      () => [forward(hidden.ref, table.ref, targets.ref)],
      ([found]) => inputs.checkForward(found ?? []),
    );
  }
  const loss = (h: np.Array, t: np.Array, ids: np.Array, weights: np.Array) => logProbs(h, t, ids).mul(weights).sum();
  const both = jit(valueAndGrad(loss, { argnums: [0, 1] }));
  return runOf(
    () => {
      const [value, [dHidden, dTable]] = both(hidden.ref, table.ref, targets.ref, coefficients.ref);
      tree.dispose(value);
      return [dHidden, dTable];
    },
    ([dHidden, dTable]) => inputs.checkBackward(dHidden ?? [], dTable ?? []),
  );
});
