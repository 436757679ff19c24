/**
 * The gated delta rule and its norm in float64: against central differences, against sequences one by one where prompts
 * are shared, and within a whole Qwen3.5 against the log-probs that PyTorch computed.
 */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { sigmoid, swigluForward } from "../../../src/kernels/float64/activation.ts";
import { attentionForward } from "../../../src/kernels/float64/attention.ts";
import { joinColumns, splitColumns } from "../../../src/kernels/float64/columns.ts";
import { at } from "../../../src/kernels/float64/elements.ts";
import { embeddingForward, gatherRows } from "../../../src/kernels/float64/embedding.ts";
import {
  type DeltaInputs,
  gatedDeltaBackward,
  gatedDeltaForward,
  softplus,
} from "../../../src/kernels/float64/gated-delta.ts";
import { gatedNormBackward, gatedNormForward } from "../../../src/kernels/float64/gated-norm.ts";
import { headNormForward } from "../../../src/kernels/float64/head-norm.ts";
import { logSoftmaxGatherForward } from "../../../src/kernels/float64/log-softmax-gather.ts";
import { matmul } from "../../../src/kernels/float64/matmul.ts";
import { rmsNormForward } from "../../../src/kernels/float64/norm.ts";
import { ropeForward } from "../../../src/kernels/float64/rope.ts";
import { dot, expectGradient, normals } from "../../helpers/central-differences.ts";
import { readJson } from "../../helpers/fixtures.ts";
import { readFloat64Safetensors } from "../../helpers/float64-safetensors.ts";

const RUNS = { numRuns: 30, seed: 20240202 };
const seed = fc.integer({ min: 0, max: 2 ** 31 });

const shapes = fc.record({
  keyHeads: fc.integer({ min: 1, max: 2 }),
  repeats: fc.integer({ min: 1, max: 2 }),
  keySize: fc.integer({ min: 1, max: 4 }),
  valueSize: fc.integer({ min: 1, max: 4 }),
  seed,
});

/** A prompt of three rows, two completions of it, and another sequence of two rows. */
const SHARED = [-1, 0, 1, 2, 3, 2, 5, -1, 7];

function drawn(
  { keyHeads, repeats, keySize, valueSize, seed: s }: typeof shapes extends fc.Arbitrary<infer S> ? S : never,
  previous: readonly number[],
): DeltaInputs {
  const random = normals(s);
  const valueHeads = keyHeads * repeats;
  const rows = previous.length;
  return {
    ...{ keyHeads, valueHeads, keySize, valueSize, previous },
    qkv: random(rows * (2 * keyHeads * keySize + valueHeads * valueSize)),
    ...{ a: random(rows * valueHeads), b: random(rows * valueHeads) },
    ...{ aLog: random(valueHeads), dtBias: random(valueHeads) },
  };
}

describe("the gated delta rule", () => {
  it("gatedDeltaBackward is the gradient of gatedDeltaForward, with two completions of one prompt", () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const inputs = drawn(shape, SHARED);
        const dOut = normals(shape.seed + 1)(SHARED.length * inputs.valueHeads * inputs.valueSize);
        const f = () => dot(gatedDeltaForward(inputs).out, dOut);
        const d = gatedDeltaBackward({ ...inputs, dOut });
        expectGradient(f, inputs.qkv, d.dQkv);
        expectGradient(f, inputs.a, d.da);
        expectGradient(f, inputs.b, d.db);
        expectGradient(f, inputs.aLog, d.dALog);
        expectGradient(f, inputs.dtBias, d.dDtBias);
      }),
      { ...RUNS, numRuns: 12 },
    );
  });

  it("gives a completion behind a shared prompt what the whole sequence would give", () => {
    const inputs = drawn({ keyHeads: 2, repeats: 2, keySize: 3, valueSize: 2, seed: 5 }, SHARED);
    const own = [0, 1, 2, 5, 6];
    const alone = (x: Float64Array, width: number) =>
      Float64Array.from(own.flatMap((row) => [...x.subarray(row * width, (row + 1) * width)]));
    const separate = gatedDeltaForward({
      ...inputs,
      ...{ qkv: alone(inputs.qkv, 20), a: alone(inputs.a, 4), b: alone(inputs.b, 4) },
      previous: [-1, 0, 1, 2, 3],
    });
    const packed = gatedDeltaForward(inputs);
    expect(alone(packed.out, 8)).toEqual(separate.out);
    expect(packed.states(6)).toEqual(separate.states(4));
  });

  it("stays finite where exp would overflow", () => {
    expect([softplus(-1e4), softplus(1e4)]).toEqual([0, 1e4]);
  });
});

describe("the gated norm", () => {
  it("gatedNormBackward is the gradient of gatedNormForward", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 5 }), seed, (rows, size, s) => {
        const random = normals(s);
        const [x, z, weight, dy] = [random(rows * size), random(rows * size, 2), random(size), random(rows * size)];
        const forward = () => gatedNormForward(x, z, weight, 1e-5);
        const f = () => dot(forward().y, dy);
        const d = gatedNormBackward(dy, x, z, weight, forward().inverse);
        expectGradient(f, x, d.dx);
        expectGradient(f, z, d.dz);
        expectGradient(f, weight, d.dWeight);
      }),
      RUNS,
    );
  });
});

const FIXTURE = "test/fixtures/qwen3_5";
const [HEADS, KEY_VALUE_HEADS, HEAD_SIZE, THETA] = [4, 2, 16, 1e7];
const DELTA = { keyHeads: 2, valueHeads: 4, keySize: 8, valueSize: 10 };
const [TAPS, EPSILON] = [4, 1e-6];

/** The whole of Qwen3.5 forward, written out here: only the parts under test and those that other families share. */
class Qwen35 {
  readonly #weights: ReturnType<typeof readFloat64Safetensors>;

  constructor(role: "policy" | "reference") {
    this.#weights = readFloat64Safetensors(`${FIXTURE}/${role}/model.safetensors`);
  }

  #weight(name: string): Float64Array {
    const found = this.#weights.get(`model.${name}`);
    if (found === undefined) throw new Error(`no tensor ${name}`);
    return found.data;
  }

  #linear(name: string, x: Float64Array, rows: number): Float64Array {
    const weight = this.#weight(`${name}.weight`);
    const k = x.length / rows;
    return matmul({ a: x, b: weight, m: rows, n: weight.length / k, k, transposeB: true });
  }

  /** 1 is added to the weight. */
  #norm(name: string, x: Float64Array): Float64Array {
    return rmsNormForward(
      x,
      this.#weight(`${name}.weight`).map((w) => 1 + w),
      EPSILON,
    ).y;
  }

  #delta(layer: string, x: Float64Array, rows: number): Float64Array {
    const name = (part: string) => `${layer}.linear_attn.${part}`;
    const before = this.#linear(name("in_proj_qkv"), x, rows);
    const taps = this.#weight(name("conv1d.weight"));
    const width = before.length / rows;
    const qkv = Float64Array.from(before, (_, i) => {
      const [t, c] = [Math.floor(i / width), i % width];
      let sum = 0;
      for (let j = Math.max(0, TAPS - 1 - t); j < TAPS; j++) {
        sum += at(taps, c * TAPS + j) * at(before, (t - TAPS + 1 + j) * width + c);
      }
      return sum * sigmoid(sum);
    });
    const { out } = gatedDeltaForward({
      ...DELTA,
      ...{ qkv, a: this.#linear(name("in_proj_a"), x, rows), b: this.#linear(name("in_proj_b"), x, rows) },
      ...{ aLog: this.#weight(name("A_log")), dtBias: this.#weight(name("dt_bias")) },
      previous: Array.from({ length: rows }, (_, t) => t - 1),
    });
    const z = this.#linear(name("in_proj_z"), x, rows);
    const { y } = gatedNormForward(out, z, this.#weight(name("norm.weight")), EPSILON);
    return this.#linear(name("out_proj"), y, rows);
  }

  #attention(layer: string, x: Float64Array, rows: number): Float64Array {
    const name = (part: string) => `${layer}.self_attn.${part}`;
    const [wide, kept] = [HEADS * HEAD_SIZE, KEY_VALUE_HEADS * HEAD_SIZE];
    // A head's rows are its query and then its gate.
    const queries = this.#linear(name("q_proj"), x, rows);
    const halves = splitColumns(queries, [HEAD_SIZE, HEAD_SIZE], rows * HEADS);
    const [query = x, gate = x] = halves.map((half) => Float64Array.from(half));
    const k = this.#linear(name("k_proj"), x, rows);
    const gain = (part: string) => this.#weight(name(part)).map((w) => 1 + w);
    const { y: normed } = headNormForward(joinColumns([query, k], rows), EPSILON, {
      ...{ queryWeight: gain("q_norm.weight"), keyWeight: gain("k_norm.weight") },
      ...{ queryHeads: HEADS, keyHeads: KEY_VALUE_HEADS, rows },
    });
    const [q = x, keys = x] = splitColumns(normed, [wide, kept], rows);
    const turned = (part: Float64Array, heads: number) =>
      ropeForward({
        x: part,
        positions: Array.from({ length: rows }, (_, t) => t),
        ...{ heads, headSize: HEAD_SIZE, theta: THETA, rotated: HEAD_SIZE / 4 },
      });
    const { out } = attentionForward({
      ...{ q: turned(q, HEADS), k: turned(keys, KEY_VALUE_HEADS), v: this.#linear(name("v_proj"), x, rows) },
      ranges: Array.from({ length: rows }, (_, t) => [0, 0, 0, t + 1]).flat(),
      ...{ heads: HEADS, keyValueHeads: KEY_VALUE_HEADS, headSize: HEAD_SIZE },
    });
    return this.#linear(
      name("o_proj"),
      out.map((value, i) => value * sigmoid(at(gate, i))),
      rows,
    );
  }

  logProb(promptIds: readonly number[], completionIds: readonly number[]): number {
    const ids = [...promptIds, ...completionIds];
    const rows = ids.length;
    const embedding = this.#weight("embed_tokens.weight");
    let x = embeddingForward(embedding, ids, 40);
    const added = (y: Float64Array) => x.map((value, i) => value + at(y, i));
    for (let i = 0; i < 4; i++) {
      const layer = `layers.${i}`;
      const normed = this.#norm(`${layer}.input_layernorm`, x);
      x = added(i === 3 ? this.#attention(layer, normed, rows) : this.#delta(layer, normed, rows));
      const middle = this.#norm(`${layer}.post_attention_layernorm`, x);
      const [gate, up] = ["gate", "up"].map((part) => this.#linear(`${layer}.mlp.${part}_proj`, middle, rows));
      const activated = swigluForward(joinColumns([gate ?? middle, up ?? middle], rows), 64);
      x = added(this.#linear(`${layer}.mlp.down_proj`, activated, rows));
    }
    const predicting = completionIds.map((_, n) => promptIds.length - 1 + n);
    const hidden = gatherRows(this.#norm("norm", x), predicting, 40);
    return logSoftmaxGatherForward(hidden, embedding, completionIds).logProbs.reduce((sum, one) => sum + one, 0);
  }
}

it("within a whole Qwen3.5 gives the log-probs that PyTorch computed in float64", () => {
  const expected = readJson<Record<string, number[]>>(`${FIXTURE}/expected.json`);
  const examples = readFileSync(`${FIXTURE}/data.jsonl`, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { prompt_ids: number[]; completion_ids: number[] });
  for (const role of ["policy", "reference"] as const) {
    const model = new Qwen35(role);
    for (const [kind, shift] of [
      ["", 0],
      ["kl_", 1],
    ] as const) {
      const found = examples.map(({ prompt_ids }, i) =>
        model.logProb(prompt_ids, examples[(i + shift) % examples.length]?.completion_ids ?? []),
      );
      const wanted = expected[`${kind}${role}_logps`] ?? [];
      expect(found).toEqual(wanted.map((value) => expect.closeTo(value, 9)));
    }
  }
});
