/**
 * The whole KTO update in jax-js: the same Llama (RMSNorm, RoPE, grouped-query attention, SwiGLU), the same objective,
 * clip and AdamW as ours, from the same weights and rows, in one jit. The head takes the rows that predict completion
 * tokens only, as ours does.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { jit, lax, nn, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { openSafetensors } from "../../src/engine/files/safetensors.ts";
import { type ModelConfig, parseModelConfig } from "../../src/engine/model/config/config.ts";
import type { PeerWork, StepRows } from "../measure/peer-work.ts";
import { expectGradients, STEP_SETTINGS, stepExamples } from "../step.ts";
import type { PeerRun } from "./answer.ts";

/** By Hugging Face name. */
type Parameters = Record<string, np.Array>;

/**
 * Tokens that go in [B L], and those that are predicted at the last rows of each sequence [B N]. Flat, since jax-js
 * scatters gradients by indices only where these are an argument of the jit as they are.
 */
interface Tokens {
  readonly ids: np.Array;
  readonly targets: np.Array;
}

/** @param queue of the device that jax-js runs on */
export async function stepRun(work: Extract<PeerWork, { kind: "step" }>, queue: GPUQueue): Promise<PeerRun> {
  const configFile = join(work.folder, "config.json");
  const config = parseModelConfig(readFileSync(configFile, "utf8"), configFile);
  const { rows } = work.batch;
  const examples = stepExamples(work.batch, config.vocabSize);
  const tokens = (completionOf: (row: number) => ArrayLike<number>): Tokens => {
    const ids = examples.flatMap(({ promptIds }, row) => [
      ...Array.from(promptIds),
      ...Array.from(completionOf(row)).slice(0, -1),
    ]);
    const targets = examples.flatMap((_, row) => Array.from(completionOf(row)));
    return {
      ids: np.array(Int32Array.from(ids)),
      targets: np.array(Int32Array.from(targets)),
    };
  };
  const own = tokens((row) => examples[row]?.completionIds ?? []);
  const mismatched = tokens((row) => examples[(row + 1) % rows]?.completionIds ?? []);
  // +1 desirable, -1 undesirable
  const signs = np.array(Float32Array.from(examples, ({ label }) => (label ? 1 : -1)));
  const parameters = await readParameters(join(work.folder, "model.safetensors"));
  const logProbs = logProbsOf(config, work.batch);
  const { beta, learningRate, beta1, beta2, epsilon, maxNorm } = STEP_SETTINGS;

  const loss = (
    policy: Parameters,
    referenceLogProbs: np.Array,
    referencePoint: np.Array,
    tokens: Tokens,
    signs: np.Array,
  ) => {
    const reward = logProbs(policy, tokens).sub(referenceLogProbs);
    const values = nn.sigmoid(reward.sub(referencePoint).mul(signs).mul(beta));
    return values.mul(-1).add(1).mean();
  };
  const gradients = (policy: Parameters, reference: Parameters, own: Tokens, mismatched: Tokens, signs: np.Array) => {
    const kl = logProbs(tree.ref(policy), tree.ref(mismatched))
      .sub(logProbs(tree.ref(reference), mismatched))
      .mean();
    const referencePoint = lax.stopGradient(np.maximum(kl, 0));
    const referenceLogProbs = logProbs(reference, tree.ref(own));
    return valueAndGrad(loss)(policy, referenceLogProbs, referencePoint, own, signs);
  };
  const update = (
    policy: Parameters,
    first: Parameters,
    second: Parameters,
    reference: Parameters,
    own: Tokens,
    mismatched: Tokens,
    signs: np.Array,
    corrections: np.Array,
  ) => {
    const [value, gradient] = gradients(tree.ref(policy), reference, own, mismatched, signs);
    const squares = Object.values(gradient as Parameters).map((g) => np.square(g.ref).sum());
    const norm = np.sqrt(squares.reduce((sum, one) => sum.add(one)));
    const scale = np.minimum(np.reciprocal(norm.add(1e-6)).mul(maxNorm), 1);
    const [correction1, correction2] = [corrections.ref.slice(0), corrections.slice(1)];
    const next = { policy: {} as Parameters, first: {} as Parameters, second: {} as Parameters };
    for (const name of Object.keys(policy)) {
      const [p, g, m, v] = [policy[name], (gradient as Parameters)[name], first[name], second[name]];
      if (!p || !g || !m || !v) throw new Error(`no gradient of ${name}`);
      const scaled = g.mul(scale.ref);
      const newFirst = m.mul(beta1).add(scaled.ref.mul(1 - beta1));
      const newSecond = v.mul(beta2).add(np.square(scaled).mul(1 - beta2));
      const direction = newFirst.ref.div(correction1.ref).div(np.sqrt(newSecond.ref.div(correction2.ref)).add(epsilon));
      next.policy[name] = p.sub(direction.mul(learningRate));
      next.first[name] = newFirst;
      next.second[name] = newSecond;
    }
    tree.dispose([scale, correction1, correction2]);
    return { value, ...next };
  };
  const jittedUpdate = jit(update);
  const zeros = () => Object.fromEntries(Object.entries(parameters).map(([name, x]) => [name, np.zerosLike(x.ref)]));
  let state = { policy: tree.ref(parameters), first: zeros(), second: zeros() };
  let updates = 0;
  const step = () => {
    updates++;
    const corrections = np.array(Float32Array.of(1 - beta1 ** updates, 1 - beta2 ** updates));
    const { policy, first, second } = state;
    const { value, ...next } = jittedUpdate(
      policy,
      first,
      second,
      tree.ref(parameters),
      tree.ref(own),
      tree.ref(mismatched),
      signs.ref,
      corrections,
    );
    state = next;
    return value;
  };
  const check = async () => {
    const [value, gradient] = jit(gradients)(
      tree.ref(parameters),
      tree.ref(parameters),
      tree.ref(own),
      tree.ref(mismatched),
      signs.ref,
    );
    tree.dispose(value);
    await checkGradients(gradient as Parameters, work.gradients);
    for (const [index, wanted] of work.losses.entries()) {
      const [found = Number.NaN] = await step().data();
      if (!(Math.abs(found - wanted) <= 5e-5)) {
        throw new Error(`the loss of update ${index + 1} is ${found}, ours ${wanted}`);
      }
    }
  };
  return {
    check,
    submit: () => {
      // The new state is submitted with the loss, of which it is no part, only when somebody asks for it.
      step().gpuBufferSync();
      for (const leaf of tree.leaves(state) as np.Array[]) leaf.ref.gpuBufferSync();
    },
    queue,
  };
}

async function readParameters(path: string): Promise<Parameters> {
  const file = await openSafetensors(path);
  const parameters: Parameters = {};
  for (const [name, { shape }] of file.tensors) {
    parameters[name] = np.array(await file.readF32(name)).reshape([...shape]);
  }
  await file.close();
  return parameters;
}

/** Every gradient within 1e-3 of ours, relative in norm. */
async function checkGradients(found: Parameters, path: string): Promise<void> {
  const file = await openSafetensors(path);
  try {
    for (const name of file.tensors.keys()) {
      const own = new Map([[name, (await found[name]?.data()) ?? []]]);
      expectGradients(own, [{ name, data: await file.readF32(name) }], 1e-3);
    }
  } finally {
    await file.close();
  }
}

/** Log-probabilities of completions, summed over their tokens: [B]. */
function logProbsOf(
  config: ModelConfig,
  { rows, prompt, completion }: StepRows,
): (parameters: Parameters, tokens: Tokens) => np.Array {
  const length = prompt + completion - 1;
  const { hiddenSize, heads, keyValueHeads, headSize, layers, normEpsilon } = config;
  const ropeTheta = config.layerRope[0]?.theta ?? Number.NaN;
  const half = headSize / 2;
  const angles = (of: (angle: number) => number) => {
    const values = Float32Array.from({ length: length * half }, (_, i) =>
      of(Math.floor(i / half) * ropeTheta ** (-(i % half) / half)),
    );
    return np.array(values).reshape([length, 1, half]);
  };
  const [cosines, sines] = [angles(Math.cos), angles(Math.sin)];

  const norm = (x: np.Array, weight: np.Array) => {
    const scale = np.reciprocal(np.sqrt(np.square(x.ref).mean(-1, { keepdims: true }).add(normEpsilon)));
    return x.mul(scale).mul(weight);
  };
  const linear = (x: np.Array, weight: np.Array) => np.matmul(x, weight.transpose());
  const rotate = (x: np.Array) => {
    const [x1, x2] = np.split(x, 2, -1);
    if (!x1 || !x2) throw new Error("a head without halves");
    return np.concatenate(
      [x1.ref.mul(cosines.ref).sub(x2.ref.mul(sines.ref)), x2.mul(cosines.ref).add(x1.mul(sines.ref))],
      -1,
    );
  };

  return (parameters, { ids, targets }) => {
    const take = (name: string): np.Array => {
      const found = parameters[name];
      if (!found) throw new Error(`no ${name}`);
      return found;
    };
    // [B L, C] between the layers: products of two matrices.
    let x = np.take(take("model.embed_tokens.weight").ref, ids, 0);
    for (let layer = 0; layer < layers; layer++) {
      const of = (name: string) => take(`model.layers.${layer}.${name}.weight`);
      const normed = norm(x.ref, of("input_layernorm"));
      const q = linear(normed.ref, of("self_attn.q_proj")).reshape([rows, length, heads, headSize]);
      const k = linear(normed.ref, of("self_attn.k_proj")).reshape([rows, length, keyValueHeads, headSize]);
      const v = linear(normed, of("self_attn.v_proj")).reshape([rows, length, keyValueHeads, headSize]);
      const attended = nn
        .dotProductAttention(rotate(q), rotate(k), v, { isCausal: true })
        .reshape([rows * length, heads * headSize]);
      const middle = x.add(linear(attended, of("self_attn.o_proj")));
      const mlpIn = norm(middle.ref, of("post_attention_layernorm"));
      const gate = nn.silu(linear(mlpIn.ref, of("mlp.gate_proj")));
      x = middle.add(linear(gate.mul(linear(mlpIn, of("mlp.up_proj"))), of("mlp.down_proj")));
    }
    const headRows = x
      .reshape([rows, length, hiddenSize])
      .slice([], [prompt - 1, length])
      .reshape([rows * completion, hiddenSize]);
    const normed = norm(headRows, take("model.norm.weight"));
    const head = take(config.tiedHead ? "model.embed_tokens.weight" : "lm_head.weight");
    const chosen = normed.ref.mul(np.take(head.ref, targets, 0)).sum(1);
    const logProbs = chosen.sub(nn.logsumexp(linear(normed, head), 1));
    return logProbs.reshape([rows, completion]).sum(1);
  };
}
