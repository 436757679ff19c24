/** Opens the judge that the options name, writes its transcripts, and computes a run's win rate with it. */
import { setMaxListeners } from "node:events";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { platform } from "../../engine/platform/index.ts";
import { asPhrase, ConfigError, errorMessage, FileError, JudgeError } from "../../errors.ts";
import { EVAL_PREFIX } from "../../kto/evaluation/evaluator.ts";
import type { OwnMetrics } from "../../kto/evaluation/run-evaluation.ts";
import { ChatJudge } from "../../kto/judge/chat-judge.ts";
import { type AnswerPair, judgePairs, WIN_RATE_METRICS, winRateMetrics } from "../../kto/judge/compare.ts";
import { answerWithin, functionJudge, type Judge, type JudgeFunction, type JudgeWait } from "../../kto/judge/judge.ts";
import { asksForJudge, type JudgeOptions } from "../../kto/options/judge.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { checkOutputFile } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

const OPENAI = "https://api.openai.com/v1";

/**
 * Opens the judge. Call it before any other work, so that a module that cannot be loaded or a file that cannot be
 * written is reported at once.
 *
 * @param signal ends the waiting for its answers
 * @throws FileError, ConfigError, JudgeError
 */
export async function openJudge(
  options: JudgeOptions & { readonly dry_run?: boolean },
  signal?: AbortSignal,
): Promise<Judge> {
  const { judge, judge_model: model, judge_transcripts: transcripts } = options;
  const wait = { timeoutMs: Math.ceil(options.judge_timeout * 1000), signal };
  if (judge !== undefined) return functionJudge(await judgeModule(judge, wait), judge, wait);
  if (model === undefined) throw new ConfigError("there is no judge: give judge or judge_model.");
  await checkOutputFile(transcripts, options.dry_run);
  return new ChatJudge({
    baseUrl: options.judge_base_url ?? OPENAI,
    model,
    apiKey: platform.environment("KTO_JUDGE_API_KEY") ?? platform.environment("OPENAI_API_KEY"),
    budget: options.judge_budget,
    ...wait,
    request: options.judge_request,
    onTranscript: (entry) => platform.append(transcripts, `${JSON.stringify(entry)}\n`),
  });
}

async function judgeModule(path: string, wait: JudgeWait): Promise<JudgeFunction> {
  if ((await platform.exists(path)) !== "file") throw new FileError(`The judge ${path} does not exist.`);
  let loaded: { default?: unknown };
  try {
    // The user's own file, which is known by its path only.
    loaded = await answerWithin(async () => (await import(pathToFileURL(resolve(path)).href)) as object, wait);
  } catch (error) {
    throw new JudgeError(`The judge ${path} cannot be loaded: ${asPhrase(errorMessage(error))}.`, { cause: error });
  }
  if (typeof loaded.default === "function") return loaded.default as JudgeFunction;
  throw new ConfigError(
    `The judge ${path} has no function as its default export; write export default async (prompt, a, b) => "a", "b", "tie" or a number.`,
  );
}

/**
 * Runs a command that may use a judge's module. A rejected promise that the module does not handle would end the
 * process; here it is a warning, given once, and the judge's answers count.
 */
export async function tellingUnhandled(
  { judge }: JudgeOptions,
  output: Output,
  work: () => Promise<void>,
): Promise<void> {
  if (judge === undefined) return await work();
  let told = false;
  const tell = (reason: unknown) => {
    if (told) return;
    told = true;
    output.warning(
      `A promise was rejected and not handled, most likely in the judge ${judge}: ${asPhrase(errorMessage(reason))}.`,
    );
  };
  process.on("unhandledRejection", tell);
  try {
    await work();
  } finally {
    await new Promise((resolve) => setImmediate(resolve)); // rejections that the last answers left are reported too
    process.off("unhandledRejection", tell);
    // A rejection that comes later, while the process ends, must not change its exit code.
    if (!process.listeners("unhandledRejection").includes(ignore)) process.on("unhandledRejection", ignore);
  }
}

function ignore(): void {}

/** Why a run needs a win rate, as part of a sentence; undefined if it does not. */
export function needOfWinRate({ metric_for_best_model: metric = "" }: RunConfig): string | undefined {
  const goesByIt = WIN_RATE_METRICS.includes(metric.replace(EVAL_PREFIX, ""));
  return goesByIt ? `option "metric_for_best_model" is "${metric}"` : undefined;
}

/**
 * The win rate of a run's evaluations, if the options name a judge: the model's answers against those that it gave
 * before training. When the judge fails, the run goes on without a win rate.
 *
 * @param signal aborts the waiting for the judge when the run is to stop
 * @param isFirst rank 0, who alone asks the judge; the others generate their part of the answers
 * @throws what `openJudge` does
 */
export async function judgeOfRun(
  options: JudgeOptions & Pick<RunConfig, "dry_run">,
  output: Output,
  { signal, isFirst }: { readonly signal: AbortSignal; readonly isFirst: boolean },
): Promise<((pairs: (step: number) => Promise<AnswerPair[]>) => OwnMetrics) | undefined> {
  if (!asksForJudge(options)) return undefined;
  if (!isFirst) {
    const measure = async (pairs: (step: number) => Promise<AnswerPair[]>, step: number) => {
      await pairs(step);
      return undefined;
    };
    return (pairs) => ({ names: WIN_RATE_METRICS, measure: (step) => measure(pairs, step) });
  }
  setMaxListeners(0, signal); // each prompt that is judged adds one
  const judge = await openJudge(options, signal);
  return (pairs) => ({
    names: WIN_RATE_METRICS,
    measure: async (step) => {
      try {
        const given = await pairs(step);
        const found = await working(output, `${judge.name} judges`, async (progress) => {
          const onJudged = (done: number) => progress(done, given.length);
          return await judgePairs(judge, given, { concurrency: options.judge_concurrency, onJudged });
        });
        return winRateMetrics(found);
      } catch (error) {
        if (!(error instanceof JudgeError || error instanceof FileError)) throw error;
        // A run that is to stop breaks the evaluation off, and repeats it when it is resumed.
        if (!signal.aborted) {
          output.warning(`There is no win rate at step ${step}: ${errorMessage(error)} The training goes on.`);
        }
        return undefined;
      }
    },
  });
}
