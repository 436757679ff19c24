/** logits/* and entropy of docs/metrics.md in float64, from every logit of a model. */
import type { Float64Model } from "../../src/engine/model/float64/decoder.ts";
import type { BatchExample } from "../../src/kto/method/batch.ts";

export function exactTokenMetrics(model: Float64Model, examples: readonly BatchExample[]): Record<string, number> {
  const tokens = examples.flatMap(({ promptIds, completionIds, label }) => {
    const logits = model.logits([...Array.from(promptIds), ...Array.from(completionIds)]);
    const { vocabSize: V } = model.config;
    return Array.from(completionIds, (_, t) => {
      const from = (promptIds.length - 1 + t) * V;
      const row = [...logits.subarray(from, from + V)];
      const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
      const entropy = row.reduce((sum, logit) => sum - Math.exp(logit - total) * (logit - total), 0);
      return { label, entropy, logit: mean(row) };
    });
  });
  const logitOf = (label: boolean) => mean(tokens.filter((token) => token.label === label).map(({ logit }) => logit));
  return {
    "logits/chosen": logitOf(true),
    "logits/rejected": logitOf(false),
    entropy: mean(tokens.map(({ entropy }) => entropy)),
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
