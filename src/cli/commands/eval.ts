/**
 * `kto eval`: losses and rewards of a model on feedback, and how often a judge prefers its answers to another model's.
 */
import type { Device } from "../../engine/gpu/device.ts";
import { textFolder } from "../../engine/model/config/folder.ts";
import type { Model } from "../../engine/model/model.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { loadTokenizer, type Tokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, counted, NumericError } from "../../errors.ts";
import type { Example, FeedbackRow, FeedbackRows } from "../../kto/data/types.ts";
import { Continuations } from "../../kto/evaluation/continuations.ts";
import { Evaluator } from "../../kto/evaluation/evaluator.ts";
import { type AnswerPair, type JudgedWinRate, judgePairs } from "../../kto/judge/compare.ts";
import type { Judge } from "../../kto/judge/judge.ts";
import type { Metrics } from "../../kto/method/metrics.ts";
import { objectiveOptions } from "../../kto/method/objective.ts";
import { asksForJudge } from "../../kto/options/judge.ts";
import { checkSamePrompts, checkSameRows } from "../../kto/run/same-run.ts";
import { type EvalOptions, evalDescription } from "../descriptions/eval.ts";
import { command } from "../options/command.ts";
import { openJudge, tellingUnhandled } from "../session/judge.ts";
import { loadModel, modelFolders } from "../session/models.ts";
import { type Prompt, promptEncoder, promptText, readPrompts, withoutSource } from "../session/prompts.ts";
import { openRanks } from "../session/ranks.ts";
import { encodeFeedback, readRows, requirePairs, withDevice } from "../session/rows.ts";
import { resolveSampling } from "../session/sampling.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(evalDescription, (options, output) =>
  tellingUnhandled(options, output, () => runEval(options, output)),
);

async function runEval(options: EvalOptions, output: Output): Promise<void> {
  const ranks = await openRanks(options, output);
  await checkComparison(options, output);
  // One rank alone asks the judge; losses and answers are all ranks'.
  const judge = asksForJudge(options) && ranks.rank === 0 ? await openJudge(options) : undefined;
  const given = await readPrompts(options);
  await withDevice(options, output, async (device) => {
    const { policy, reference } = await loadBoth(device, options, output);
    let rows: FeedbackRows = [];
    let metrics: Metrics | undefined;
    if (options.dataset_name !== undefined) {
      const { dataset_name, dataset_test_split: dataset_train_split } = options;
      const dataset = { ...options, dataset_name, dataset_train_split };
      rows = await readRows(dataset, output, undefined, "dataset_test_split");
      const { examples } = await encodeFeedback(rows, { policy, reference }, dataset, output);
      await checkSameRows(ranks, examples);
      if (options.loss_type === "kto") requirePairs(examples, dataset);
      metrics = { rows: examples.length, ...(await measure({ policy, reference, ranks }, examples, options, output)) };
    }
    let winRate: JudgedWinRate | undefined;
    if (asksForJudge(options)) {
      const pairs = await answers({ policy, reference, ranks }, { given, rows }, options, output);
      winRate = judge && (await judgeAnswers(judge, pairs, options, output));
    }
    if (ranks.rank === 0) report({ metrics, winRate, judge }, output);
  });
}

/**
 * Before a device is opened and weights are loaded.
 *
 * @throws ConfigError where no reference is named and the model has no adapter, whose base would be one
 */
async function checkComparison(options: EvalOptions, output: Output): Promise<void> {
  if (options.ref_model_name_or_path !== undefined) return;
  const { adapter } = await modelFolders(options, output, false);
  if (adapter !== undefined) return;
  throw new ConfigError(
    "there is no model to compare with: give ref_model_name_or_path, the model before it was trained.",
  );
}

/** Loads the model and the one that it is compared with. */
async function loadBoth(
  device: Device,
  options: EvalOptions,
  output: Output,
): Promise<{ policy: Model; reference: Model }> {
  const policy = await loadModel(device, options, output);
  const name = options.ref_model_name_or_path;
  if (name === undefined) return { policy, reference: policy.base };
  // Not loadReference: answers may be compared across vocabularies, and log-probabilities are refused later.
  const { adapter_name_or_path: _, model_revision: __, ...rest } = options;
  const other = { ...rest, model_name_or_path: name, model_revision: "main" };
  return { policy, reference: await loadModel(device, other, output) };
}

/** @throws NumericError for a loss that is not finite */
async function measure(
  { policy, reference, ranks }: { readonly policy: Model; readonly reference: Model; readonly ranks: Communicator },
  examples: readonly Example[],
  options: EvalOptions,
  output: Output,
): Promise<Metrics> {
  const objective = objectiveOptions(options, examples);
  const evaluator = new Evaluator({
    policy,
    reference,
    examples,
    batchSize: options.per_device_eval_batch_size,
    objective,
    ranks,
    maxLength: Math.min(options.max_length, policy.config.contextLength, reference.config.contextLength),
  });
  try {
    const metrics = await working(output, "evaluating", (onProgress) => evaluator.run({ onProgress }));
    const { beta, desirableWeight: desirable_weight, undesirableWeight: undesirable_weight } = objective;
    const used = { beta, desirable_weight, undesirable_weight };
    if (Number.isFinite(metrics.eval_loss)) return { ...used, ...metrics };
  } finally {
    evaluator.free();
  }
  throw new NumericError(
    `The loss of ${policy.folder} is not a finite number: the weights of the model or of its reference overflow f32.`,
  );
}

/** Lets both models answer the same prompts with the same random numbers, each rank some of them. */
async function answers(
  { policy, reference, ranks }: { readonly policy: Model; readonly reference: Model; readonly ranks: Communicator },
  { given, rows }: { readonly given: readonly Prompt[]; readonly rows: FeedbackRows },
  options: EvalOptions,
  output: Output,
): Promise<AnswerPair[]> {
  const all = given.length > 0 ? given : await promptsOf(rows, await textFolder(policy));
  const prompts = all.slice(0, options.judge_prompts);
  if (prompts.length < all.length)
    output.info(
      `the first ${counted(prompts.length, `of ${all.length} prompts is`, `of ${all.length} prompts are`)} judged`,
    );
  const answersOf = async (model: Model): Promise<string[]> => {
    const texts = await textFolder(model);
    const tokenizer = await loadTokenizer(texts);
    const encode = await promptEncoder(prompts, tokenizer, texts, options);
    const ids = prompts.map(encode);
    await checkSamePrompts(ranks, ids);
    const continuations = new Continuations(model, tokenizer, ids, {
      maxNewTokens: options.max_new_tokens,
      seed: options.seed,
      sampling: await resolveSampling(options, model.folder, output),
      ranks,
    });
    try {
      const what = `${model.folder} answers ${counted(prompts.length, "prompt")}`;
      return await working(output, what, (progress) => continuations.run(progress), "tokens");
    } finally {
      continuations.free();
    }
  };
  const [own, others] = [await answersOf(policy), await answersOf(reference)];
  return prompts.map((prompt, i) => ({ prompt: promptText(prompt), model: own[i] ?? "", opponent: others[i] ?? "" }));
}

/** Lets the judge compare the answers. */
async function judgeAnswers(
  judge: Judge,
  pairs: readonly AnswerPair[],
  options: EvalOptions,
  output: Output,
): Promise<JudgedWinRate> {
  output.info(`both models have answered; ${judge.name} judges ${counted(pairs.length, "prompt")} in both orders`);
  if (options.judge === undefined) output.info(`every exchange with it is added to ${options.judge_transcripts}`);
  const result = await working(output, `${judge.name} judges`, async (progress) => {
    return await judgePairs(judge, pairs, {
      concurrency: options.judge_concurrency,
      onJudged: (done) => {
        progress(done, pairs.length);
        output.debug(`${done} of ${counted(pairs.length, "prompt")} judged`);
      },
    });
  });
  if (result.judged < result.prompts) {
    output.warning(
      `the judge's budget of ${options.judge_budget} requests ended after ${result.judged} of ${result.prompts} prompts; the win rate is over those.`,
    );
  }
  if (judge.unclear !== undefined && judge.unclear > 0) {
    output.warning(`${judge.unclear} answers of the judge held no verdict, asked twice, and count as ties.`);
  }
  return result;
}

/** The different prompts of feedback, in order. */
async function promptsOf(rows: FeedbackRows, folder: string): Promise<Prompt[]> {
  let tokenizer: Tokenizer | undefined;
  const prompts = new Map<string, Prompt>();
  for await (const row of rows) {
    if ("promptIds" in row) tokenizer ??= await loadTokenizer(folder);
    const prompt = promptOf(row, tokenizer);
    const key = JSON.stringify(withoutSource(prompt));
    if (!prompts.has(key)) prompts.set(key, prompt);
  }
  return [...prompts.values()];
}

function promptOf(row: FeedbackRow, tokenizer: Tokenizer | undefined): Prompt {
  if ("prompt" in row) return row.prompt;
  if ("promptIds" in row) return tokenizer?.decode(row.promptIds, { skipSpecialTokens: true }) ?? "";
  return {
    messages: row.promptMessages,
    source: row.source,
    ...(row.tools ? { tools: row.tools } : {}),
    ...(row.templateOptions ? { variables: row.templateOptions } : {}),
  };
}

function report(
  {
    metrics,
    winRate,
    judge,
  }: {
    readonly metrics: Metrics | undefined;
    readonly winRate: JudgedWinRate | undefined;
    readonly judge: Judge | undefined;
  },
  output: Output,
): void {
  if (output.json) {
    output.jsonLine({ ...metrics, ...(winRate ? { win_rate: jsonWinRate(winRate), judge: judge?.name } : {}) });
    return;
  }
  for (const [name, value] of Object.entries(metrics ?? {})) {
    output.result(`${name.padEnd(28)} ${Number.isInteger(value) || name === "beta" ? value : value.toFixed(4)}`);
  }
  if (winRate === undefined) return;
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
  output.result(
    `${"win rate".padEnd(28)} ${percent(winRate.share)}   95% interval ${percent(winRate.low)} - ${percent(winRate.high)}; ${winRate.wins} won, ${winRate.ties} even, ${winRate.losses} lost`,
  );
  output.result(
    `${"verdicts that turned round".padEnd(28)} ${percent(winRate.inconsistent)}   with the order of the answers`,
  );
}

function jsonWinRate(winRate: JudgedWinRate): Record<string, number | undefined> {
  const { firstShare, ...rest } = winRate;
  return { ...rest, first_share: firstShare };
}
