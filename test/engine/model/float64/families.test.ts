/**
 * The float64 model of families and switches that no fixture shows: its gradients against central differences, and
 * what a sliding window and layers without rotary positions mean, by what a prediction depends on.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseModelConfig } from "../../../../src/engine/model/config/config.ts";
import { Float64Model } from "../../../../src/engine/model/float64/decoder.ts";
import { at } from "../../../../src/kernels/float64/elements.ts";
import { centralDifferences } from "../../../helpers/central-differences.ts";
import { readFloat64Safetensors } from "../../../helpers/float64-safetensors.ts";
import { temporaryFolder } from "../../../helpers/folders.ts";
import { FAMILY_CONFIGS, llamaConfig, randomModel } from "../../../helpers/models.ts";

const folder = temporaryFolder();

async function randomFloat64(json: Readonly<Record<string, unknown>>, seed: number) {
  const model = await randomModel(folder, json, seed);
  const config = parseModelConfig(readFileSync(`${model}/config.json`, "utf8"), model);
  const weights = readFloat64Safetensors(`${model}/model.safetensors`);
  return { config, weights, model: new Float64Model(config, weights) };
}

/** The logits after the last token. */
async function lastLogits(json: Readonly<Record<string, unknown>>) {
  const { model, config } = await randomFloat64(json, 8);
  return (ids: readonly number[]) => [...model.logits(ids).subarray(-config.vocabSize)];
}

describe.each(Object.entries(FAMILY_CONFIGS))("%s", (_, json) => {
  it("agrees with central differences of the whole model", async () => {
    const { model, weights } = await randomFloat64(json, 7);
    const [promptIds, completionIds] = [
      [5, 3, 9, 11],
      [7, 5, 9, 4, 8],
    ];
    const gradients = new Map<string, Float64Array>();
    model.accumulateLogProbGradient(promptIds, completionIds, 0.5, gradients);
    expect(model.parameterNames).toHaveLength(weights.size);
    for (const parameter of model.parameterNames) {
      const data = weights.get(parameter)?.data ?? new Float64Array(0);
      const indices = [0, 1, 2].map((n) => Math.floor((data.length * (2 * n + 1)) / 6));
      const numeric = centralDifferences(() => 0.5 * model.logProb(promptIds, completionIds), data, indices, 1e-4);
      const analytic = Float64Array.from(indices, (i) => at(gradients.get(parameter) ?? data, i));
      const difference = Math.hypot(...numeric.map((value, i) => value - at(analytic, i)));
      expect(difference, parameter).toBeLessThanOrEqual(1e-6 * Math.hypot(...analytic) + 1e-10);
    }
  });
});

describe("a sliding window of W", () => {
  const mistral = (changes: Record<string, unknown>) => llamaConfig({ model_type: "mistral", ...changes });
  const ids = [5, 6, 7, 8, 9, 10, 11];

  it("shows a token itself and the W - 1 before it, in one layer", async () => {
    const logits = await lastLogits(mistral({ sliding_window: 3, num_hidden_layers: 1 }));
    const whole = logits(ids);
    for (const [place] of ids.entries()) {
      const changed = logits(ids.map((id, i) => (i === place ? 50 : id)));
      if (place < 4) expect(changed, `token ${place}`).toEqual(whole);
      else expect(changed, `token ${place}`).not.toEqual(whole);
    }
  });

  it("reaches W - 1 tokens further with every layer", async () => {
    const logits = await lastLogits(mistral({ sliding_window: 3, num_hidden_layers: 2 }));
    const changed = (place: number) => logits(ids.map((id, i) => (i === place ? 50 : id)));
    expect(changed(1)).toEqual(logits(ids));
    expect(changed(2)).not.toEqual(logits(ids));
  });

  it("that is as long as the sequence changes nothing", async () => {
    const whole = await lastLogits(mistral({ sliding_window: null }));
    expect((await lastLogits(mistral({ sliding_window: 7 })))(ids)).toEqual(whole(ids));
    expect((await lastLogits(mistral({ sliding_window: 6 })))(ids)).not.toEqual(whole(ids));
  });
});

describe("a layer without rotary positions", () => {
  it("does not know the order of the tokens before the last", async () => {
    const smollm3 = (useRope: number) =>
      lastLogits(llamaConfig({ model_type: "smollm3", no_rope_layers: [useRope], num_hidden_layers: 1 }));
    const [without, using] = [await smollm3(0), await smollm3(1)];
    const close = (values: number[]) => values.map((value) => expect.closeTo(value, 10));
    expect(without([7, 5, 6, 9])).toEqual(close(without([5, 6, 7, 9])));
    expect(using([7, 5, 6, 9])).not.toEqual(close(using([5, 6, 7, 9])));
  });
});
