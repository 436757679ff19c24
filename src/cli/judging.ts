/** The judge that a command's options name, where its transcripts go, and what it makes of a run's samples. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { platform } from "../engine/platform/index.ts";
import { ConfigError, errorMessage, FileError, JudgeError } from "../errors.ts";
import { ChatJudge } from "../kto/judge/chat-judge.ts";
import { type AnswerPair, judgePairs, WIN_RATE_METRICS, winRateMetrics } from "../kto/judge/compare.ts";
import { functionJudge, type Judge, type JudgeFunction } from "../kto/judge/judge.ts";
import { asksForJudge, type JudgeOptions } from "../kto/judge/judge-options.ts";
import type { OwnMetrics } from "../kto/run-evaluation.ts";
import { checkOutputFile } from "./files.ts";
import type { Output } from "./output.ts";

const OPENAI = "https://api.openai.com/v1";

/**
 * The judge, before any other work: a module that cannot be loaded or a file that cannot be written is told at once.
 *
 * @throws FileError, ConfigError, JudgeError
 */
export async function openJudge(options: JudgeOptions): Promise<Judge> {
  const { judge, judge_model: model, judge_transcripts: transcripts } = options;
  if (judge !== undefined) return functionJudge(await judgeModule(judge), judge);
  if (model === undefined) throw new ConfigError("there is no judge: give judge or judge_model.");
  await checkOutputFile(transcripts);
  return new ChatJudge({
    baseUrl: options.judge_base_url ?? OPENAI,
    model,
    apiKey: platform.environment("KTO_JUDGE_API_KEY") ?? platform.environment("OPENAI_API_KEY"),
    budget: options.judge_budget,
    timeoutMs: options.judge_timeout * 1000,
    request: options.judge_request,
    onTranscript: (entry) => platform.appendText(transcripts, `${JSON.stringify(entry)}\n`),
  });
}

async function judgeModule(path: string): Promise<JudgeFunction> {
  if ((await platform.exists(path)) !== "file") throw new FileError(`The judge ${path} does not exist.`);
  let loaded: { default?: unknown };
  try {
    loaded = (await import(pathToFileURL(resolve(path)).href)) as { default?: unknown };
  } catch (error) {
    throw new JudgeError(`The judge ${path} cannot be loaded: ${errorMessage(error)}`, { cause: error });
  }
  if (typeof loaded.default === "function") return loaded.default as JudgeFunction;
  throw new ConfigError(
    `The judge ${path} has no function as its default export; write export default async (prompt, a, b) => "a", "b", "tie" or a number.`,
  );
}

/**
 * The win rate of a run's evaluations, where the options name a judge: of what the model says against what it said before
 * training. A judge that fails is no reason to lose the run.
 *
 * @throws what `openJudge` does
 */
export async function judgeOfRun(
  options: JudgeOptions,
  output: Output,
): Promise<((pairs: (step: number) => Promise<AnswerPair[]>) => OwnMetrics) | undefined> {
  if (!asksForJudge(options)) return undefined;
  const judge = await openJudge(options);
  return (pairs) => ({
    names: WIN_RATE_METRICS,
    measure: async (step) => {
      try {
        const found = await judgePairs(judge, await pairs(step), { concurrency: options.judge_concurrency });
        return winRateMetrics(found);
      } catch (error) {
        if (!(error instanceof JudgeError || error instanceof FileError)) throw error;
        output.warning(`There is no win rate at step ${step}: ${errorMessage(error)} The training goes on.`);
        return Object.fromEntries(WIN_RATE_METRICS.map((name) => [name, Number.NaN]));
      }
    },
  });
}
