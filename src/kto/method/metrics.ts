/**
 * The numbers of a run, from the sums that the device keeps over a logging window. TRL's names where TRL has one; means
 * are sums divided by counts over the window, and a metric of what the window does not hold is left out.
 * Definitions: docs/metrics.md.
 */
import { type KtoLossType, METRIC_SUMS } from "../../kernels/kto-objective.ts";
import { OPTIMIZER_STATE } from "../../kernels/reduce.ts";
import { SFT_SUMS } from "../../kernels/sft-objective.ts";
import { differenceInterval } from "../report/statistics.ts";

/** Values by name, as logged: KL and log-probabilities in nats. A metric of what the window does not hold is absent. */
export type Metrics = Record<string, number>;

/** Metrics that went through JSON, in which null stands for what is not a number. */
export function numbersOf(values: Readonly<Record<string, number | null>>): Metrics {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value ?? Number.NaN]));
}

/** How several ranks shared the time of a window. */
export interface RankTimes {
  readonly count: number;
  /** The rank that waited least for the others. */
  readonly slowest: number;
  /** The share, 0 to 1, of all ranks' time in which their numbers were under way or they waited for others. */
  readonly communicationShare: number;
}

/** What the host adds to the device's sums. */
export interface WindowFacts {
  readonly epoch: number;
  readonly learningRate: number;
  /** Tokens of examples trained on since the start. */
  readonly tokens: number;
  /** Token rows that the models ran forward for training since the start. */
  readonly tokensComputed: number;
  readonly tokensPerSecond: number;
  /** The device's share of the time of the window's last update; undefined where it is not known. */
  readonly deviceTimeShare: number | undefined;
  /** The norm of the mean change of the window's last outer step; undefined where it had none. */
  readonly outerNorm: number | undefined;
  /** Device memory in bytes, by category. */
  readonly memory: Readonly<Record<string, number>>;
  /** undefined for a run of one rank. */
  readonly ranks: RankTimes | undefined;
}

/**
 * What the sums of KTO tell, of training and of evaluation.
 *
 * @param sums [METRIC_SUMS.size]
 * @param cutPairs mismatched completions that were cut to what their new prompt leaves
 */
export function objectiveMetrics(sums: ArrayLike<number>, cutPairs: number): Metrics {
  const sum = (place: number) => sums[place] ?? Number.NaN;
  const metrics: Metrics = {};
  const set = (name: string, total: number, count: number) => {
    if (count > 0) metrics[name] = total / count;
  };
  const desirable = sum(METRIC_SUMS.desirable);
  const undesirable = sum(METRIC_SUMS.undesirable);
  const microbatches = sum(METRIC_SUMS.microbatches);
  const pairs = sum(METRIC_SUMS.pairs);
  set("loss", sum(METRIC_SUMS.loss), microbatches);
  set("kl", sum(METRIC_SUMS.referencePoint), microbatches);
  set("kl/unclamped", sum(METRIC_SUMS.unclampedReferencePoint), sum(METRIC_SUMS.measured));
  set("rewards/chosen", sum(METRIC_SUMS.desirableReward), desirable);
  set("rewards/rejected", sum(METRIC_SUMS.undesirableReward), undesirable);
  if (metrics["rewards/chosen"] !== undefined && metrics["rewards/rejected"] !== undefined) {
    metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"];
  }
  set("rewards/accuracies", sum(METRIC_SUMS.correct), desirable + undesirable);
  set("logps/chosen", sum(METRIC_SUMS.desirableLogProb), desirable);
  set("logps/rejected", sum(METRIC_SUMS.undesirableLogProb), undesirable);
  set("logits/chosen", sum(METRIC_SUMS.desirableLogits), sum(METRIC_SUMS.desirableTokens));
  set("logits/rejected", sum(METRIC_SUMS.undesirableLogits), sum(METRIC_SUMS.undesirableTokens));
  set("entropy", sum(METRIC_SUMS.entropy), sum(METRIC_SUMS.desirableTokens) + sum(METRIC_SUMS.undesirableTokens));
  set("saturated", sum(METRIC_SUMS.saturated), desirable + undesirable);
  set("self_pairs", sum(METRIC_SUMS.selfPairs), pairs);
  set("cut_pairs", cutPairs, pairs);
  return metrics;
}

/** How sure the margin of an evaluation is. @param groups the sums of groups of rows, each of METRIC_SUMS.size */
export function marginInterval(groups: readonly ArrayLike<number>[]): Metrics {
  const found = differenceInterval(
    groups.map((sums) => {
      const pair = (first: number, second: number) => [sums[first] ?? 0, sums[second] ?? 0] as const;
      return {
        counts: pair(METRIC_SUMS.desirable, METRIC_SUMS.undesirable),
        sums: pair(METRIC_SUMS.desirableReward, METRIC_SUMS.undesirableReward),
      };
    }),
  );
  return found === undefined ? {} : { "rewards/margins/low": found.low, "rewards/margins/high": found.high };
}

/** What the sums of supervised fine-tuning tell. @param sums [SFT_SUMS.size] */
export function sftObjectiveMetrics(sums: ArrayLike<number>): Metrics {
  const sum = (place: number) => sums[place] ?? Number.NaN;
  const [tokens, measured] = [sum(SFT_SUMS.tokens), sum(SFT_SUMS.measuredTokens)];
  if (!(tokens > 0)) return {};
  return {
    loss: -sum(SFT_SUMS.logProb) / tokens,
    mean_token_accuracy: sum(SFT_SUMS.hits) / tokens,
    ...(measured > 0 ? { entropy: sum(SFT_SUMS.entropy) / measured } : {}),
  };
}

/** The names of what the sums over rows of these labels tell, if a pair of each microbatch counts. */
export function metricNames(lossType: KtoLossType | "sft", labels: ReadonlySet<boolean>): string[] {
  if (lossType === "sft") return Object.keys(sftObjectiveMetrics(new Float64Array(SFT_SUMS.size).fill(1)));
  const { desirable, desirableTokens, undesirable, undesirableTokens, pairs, measured } = METRIC_SUMS;
  const missing = [
    ...(labels.has(true) ? [] : [desirable, desirableTokens]),
    ...(labels.has(false) ? [] : [undesirable, undesirableTokens]),
    ...(lossType === "kto" ? [] : [pairs, measured]),
  ];
  const sums = new Float64Array(METRIC_SUMS.size).fill(1);
  for (const place of missing) sums[place] = 0;
  return Object.keys(objectiveMetrics(sums, 0));
}

/** @param objective the objective's own metrics; @param state f32[OPTIMIZER_STATE.size] after the window's last step */
export function windowMetrics({ loss, ...rest }: Metrics, state: Float32Array, facts: WindowFacts): Metrics {
  const metrics: Metrics = {
    ...(loss === undefined ? {} : { loss }),
    grad_norm: state[OPTIMIZER_STATE.gradientNorm] ?? Number.NaN,
    learning_rate: facts.learningRate,
    ...(facts.outerNorm === undefined ? {} : { outer_grad_norm: facts.outerNorm }),
    ...rest,
  };
  metrics.skipped_steps = state[OPTIMIZER_STATE.stepsSkipped] ?? 0;
  metrics.num_tokens = facts.tokens;
  metrics.tokens_computed = facts.tokensComputed;
  metrics.tokens_per_second = facts.tokensPerSecond;
  if (facts.deviceTimeShare !== undefined) metrics.device_time_share = facts.deviceTimeShare;
  if (facts.ranks !== undefined) {
    const { count, slowest, communicationShare } = facts.ranks;
    Object.assign(metrics, { ranks: count, slowest_rank: slowest, communication_share: communicationShare });
  }
  for (const [category, bytes] of Object.entries(facts.memory)) {
    metrics[`bytes/${category.replaceAll(" ", "_")}`] = bytes;
  }
  metrics.epoch = facts.epoch;
  return metrics;
}
