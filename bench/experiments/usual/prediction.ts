/** Multiplications of the usual schedule over those of ours, without attention. */
import type { ModelConfig } from "../../../src/engine/model/config/config.ts";
import type { StepRows } from "../../measure/peer-work.ts";

/**
 * Multiplications of an update on the usual schedule, always with a live reference, over those of ours. A row costs a
 * model's matrices once forward and twice backward, and there are P + C rows to a sequence. Usual: four forward passes
 * and a backward one over all rows, trunk and head alike. Ours: P + 2 C rows forward for each model, and only 2 C
 * through the head, whose backward pass computes the logits of C rows again.
 */
export function predictedRatio(
  config: Pick<
    ModelConfig,
    "hiddenSize" | "heads" | "keyValueHeads" | "headSize" | "intermediateSize" | "layers" | "vocabSize" | "mlp"
  >,
  { prompt, completion }: Pick<StepRows, "prompt" | "completion">,
  reference: "live" | "cached",
): number {
  const { hiddenSize, heads, keyValueHeads, headSize, intermediateSize, layers, vocabSize, mlp } = config;
  const attention = hiddenSize * headSize * (2 * heads + 2 * keyValueHeads);
  const trunk = layers * (attention + (mlp === "swiglu" ? 3 : 2) * hiddenSize * intermediateSize);
  const head = vocabSize * hiddenSize;
  const whole = prompt + completion;
  const models = reference === "live" ? 2 : 1;
  const usual = (4 + 2) * whole * (trunk + head);
  const ours = (models * (whole + completion) + 2 * whole) * trunk + (models * 2 + 3) * completion * head;
  return usual / ours;
}
