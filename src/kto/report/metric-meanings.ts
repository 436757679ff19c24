/**
 * What each number that a run writes means: the tables of docs/metrics.md are made of these (`npm run docs:reference`),
 * and a test compares the names with those that the code gives. The symbols are explained on that page.
 */
import type { MemoryCategory } from "../../engine/gpu/device.ts";

/** One row of a table: numbers that are explained together. */
export interface Meaning {
  readonly names: readonly string[];
  readonly meaning: string;
  /** Over what the mean is taken, where the number is a mean. */
  readonly over?: string;
}

/** Every category, so that a new one cannot be left out. */
const categories: Readonly<Record<MemoryCategory, true>> = {
  weights: true,
  "reference weights": true,
  adapter: true,
  gradients: true,
  optimizer: true,
  activations: true,
  scratch: true,
  batch: true,
  uniforms: true,
};
const listedCategories = Object.keys(categories).map((name) => `\`${name.replaceAll(" ", "_")}\``);

/** A line of metrics.jsonl that `kto train` writes on a logging step. */
export const trainingMetrics: readonly Meaning[] = [
  {
    names: ["step"],
    meaning: "updates done",
  },
  {
    names: ["loss"],
    meaning: "lambda_i (1 - sigmoid(+-beta (r_i - z0))), mean of a microbatch",
    over: "microbatches",
  },
  {
    names: ["grad_norm"],
    meaning: "L2 norm of the whole gradient before the clip",
    over: "the window's last update",
  },
  {
    names: ["learning_rate"],
    meaning: "of the window's last update",
  },
  {
    names: ["outer_grad_norm"],
    meaning: "L2 norm of the mean of what the ranks changed, the gradient of an outer step (`sync_every`)",
    over: "the window's last outer step, if it had one",
  },
  {
    names: ["kl"],
    meaning: "z0 = max(0, mean k_i)",
    over: "microbatches",
  },
  {
    names: ["kl/unclamped"],
    meaning: "mean k_i over the mismatched pairs, before the clamp",
    over: "microbatches with a pair that counts",
  },
  {
    names: ["rewards/chosen", "rewards/rejected"],
    meaning: "beta r_i of desirable, of undesirable rows",
    over: "rows of the class",
  },
  {
    names: ["rewards/margins"],
    meaning: "`rewards/chosen` - `rewards/rejected`",
  },
  {
    names: ["rewards/accuracies"],
    meaning: "rows on the right side of the reference point: r_i > z0 desirable, r_i < z0 undesirable",
    over: "rows",
  },
  {
    names: ["logps/chosen", "logps/rejected"],
    meaning: "log pi(y_i|x_i)",
    over: "rows of the class",
  },
  {
    names: ["logits/chosen", "logits/rejected"],
    meaning: "mean over the vocabulary of the logits that predict a completion token",
    over: "completion tokens of the class's rows, in the window's last update",
  },
  {
    names: ["entropy"],
    meaning: "-sum_v p_v log p_v of the distribution that predicts a completion token, in nats",
    over: "completion tokens of both classes, in the window's last update",
  },
  {
    names: ["saturated"],
    meaning: "share of rows with sigmoid(u)(1 - sigmoid(u)) < 0.01, which hardly move the model any more",
    over: "rows",
  },
  {
    names: ["self_pairs"],
    meaning: "share of mismatched pairs left out of z0 because prompt or completion is the row's own",
    over: "pairs",
  },
  {
    names: ["cut_pairs"],
    meaning: "share of mismatched completions cut to what their new prompt leaves within `max_length`",
    over: "pairs",
  },
  {
    names: ["skipped_steps"],
    meaning: "updates skipped since the start because the gradient was not finite",
  },
  {
    names: ["num_tokens"],
    meaning: "prompt and completion tokens of the rows trained on since the start",
  },
  {
    names: ["tokens_computed"],
    meaning:
      "token rows that policy and reference ran forward for the updates since the start: a prompt that an example and a mismatched pair share counts once a model, the last token of a completion, which predicts nothing, not at all, and the policy's prompts once more where `reference_point_scope: step` accumulates. Without a pass of the reference (`cached`, `uniform`) only the policy's; without mismatched pairs (`apo_zero_unpaired`) only the examples'. Not counted: what cached numbers took before the run, and what `gradient_checkpointing` computes again",
  },
  {
    names: ["tokens_per_second"],
    meaning: "the same over the window, by the clock on the wall, evaluations left out",
  },
  {
    names: ["device_time_share"],
    meaning:
      "share of the update's time by the clock on the wall in which the device computed, by the device's own timestamps; what is missing to 1 is the host's. Absent where the adapter has no timestamps (`kto doctor` tells), or where the update ran more passes than can be timed. A first update compiles",
    over: "the window's last update",
  },
  {
    names: ["ranks"],
    meaning:
      "how many ranks share the run; this line and the next two only where there are several. Counts, sums and speeds above are of all of them together, `device_time_share` and `bytes/...` of rank 0",
  },
  {
    names: ["slowest_rank"],
    meaning: "the rank that waited least for the others, counted from 0",
  },
  {
    names: ["communication_share"],
    meaning:
      "share of all ranks' time in updates in which their numbers were under way or they waited for others; what the backward pass hides counts too",
  },
  {
    names: ["bytes/..."],
    meaning: `device memory now in bytes, by category: ${listedCategories.join(", ")}`,
  },
  {
    names: ["epoch"],
    meaning: "passes over the data",
  },
];

/** A line of examples.jsonl. */
export const exampleColumns: readonly Meaning[] = [
  {
    names: ["step"],
    meaning: "updates done, this one included",
  },
  {
    names: ["beta", "desirable_weight", "undesirable_weight"],
    meaning: "the constants of the value function",
  },
  {
    names: ["rows"],
    meaning: "rows of the update, of which the logged ones are a part",
  },
  {
    names: ["z0", "z0_unclamped", "pairs"],
    meaning:
      "by reference point: z0 as it was used, the mean k_i before the clamp (null without a pair), the mismatched pairs that count. A microbatch has its own, or the update one, with `reference_point_scope: step`",
  },
  {
    names: ["index"],
    meaning: "by example: its row in the feedback, counted from 0",
  },
  {
    names: ["label", "group"],
    meaning: "by example: thumb up or not; which of the reference points it was measured against",
  },
  {
    names: ["log_ratio", "u", "v"],
    meaning: "by example: r_i, u as above, lambda_i sigmoid(u). The reward is beta r_i",
  },
  {
    names: ["saturated"],
    meaning: "by example: whether sigmoid(u)(1 - sigmoid(u)) < 0.01",
  },
];

/** What a line of `kto sft` has of its own, or means otherwise. */
export const sftMetrics: readonly Meaning[] = [
  {
    names: ["loss"],
    meaning: "-log pi of a completion token, in nats",
    over: "completion tokens",
  },
  {
    names: ["mean_token_accuracy"],
    meaning: "completion tokens than which no other has a higher probability",
    over: "completion tokens",
  },
];

/** What an evaluation has beside the metrics of training under `eval_`. */
export const evaluationMetrics: readonly Meaning[] = [
  {
    names: ["eval_runtime"],
    meaning: "seconds that the evaluation took",
  },
  {
    names: ["eval_samples_per_second", "eval_steps_per_second"],
    meaning: "rows, microbatches (with microbatches of one row: rings of eight) over that time",
  },
  {
    names: ["eval_rewards/margins/low", "eval_rewards/margins/high"],
    meaning:
      "the 95% interval of `eval_rewards/margins` over the validation rows, from how the microbatches (or rings of eight) differ; left out where there is only one",
  },
];

/** `win_rate` of `kto eval --json`; in a run's evaluations the names begin with `eval_win_rate/`. */
export const winRateFields: readonly Meaning[] = [
  {
    names: ["share", "low", "high"],
    meaning: "mean score, and Wilson's 95% interval over prompts",
  },
  {
    names: ["wins", "ties", "losses"],
    meaning: "prompts with a score above, of, below one half",
  },
  {
    names: ["judged", "prompts"],
    meaning: "prompts judged in both orders, and prompts there were; fewer where `judge_budget` ended",
  },
  {
    names: ["inconsistent"],
    meaning: "share of prompts whose verdict turned round with the order",
  },
  {
    names: ["first_share"],
    meaning:
      "of the verdicts that are no tie, the share for the answer shown first: 0.5 for a judge without a preference",
  },
];
