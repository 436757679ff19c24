/**
 * What the quickstart measures on a model: stories on held-out openings, judged by the rule that gave the thumbs, and
 * whether they are still stories: how likely the base model finds them, and how often they repeat themselves.
 */
import {
  completionLogProbs,
  type Model,
  type Share,
  type Tokenizer,
  type WinRate,
  wilsonInterval,
  winRate,
} from "../../src/index.ts";
import { distinctTrigrams, judgeStory, repeatsSentence, type Verdict } from "./judge.ts";
import { type Story, type StoryOptions, sampleStories } from "./stories.ts";

export interface Measured {
  readonly stories: readonly Story[];
  readonly verdicts: readonly Verdict[];
  /** Share judged good. */
  readonly good: Share;
  /** Mean over all tokens of all stories of log p(token) under the base model, in nats. */
  readonly logProbPerToken: number;
  /** Share of stories in which a sentence of four words or more stands twice. */
  readonly repeating: number;
  /** Mean over the stories of the share of different runs of three words. */
  readonly distinctTrigrams: number;
}

/** Samples stories from `model` and measures them. */
export async function measure(
  model: Model,
  base: Model,
  tokenizer: Tokenizer,
  openings: readonly string[],
  options: StoryOptions,
): Promise<Measured> {
  const stories = await sampleStories(model, tokenizer, openings, options);
  const verdicts = stories.map(({ text }) => judgeStory(text));
  const told = stories.filter(({ completionIds }) => completionIds.length > 0);
  const logProbs = await completionLogProbs(base, told, 32);
  const tokens = told.reduce((sum, { completionIds }) => sum + completionIds.length, 0);
  const share = (holds: (story: Story) => boolean) => stories.filter(holds).length / stories.length;
  return {
    stories,
    verdicts,
    good: wilsonInterval(verdicts.filter(({ good }) => good).length, verdicts.length),
    logProbPerToken: logProbs.reduce((sum, logProb) => sum + logProb, 0) / tokens,
    repeating: share(({ text }) => repeatsSentence(text)),
    distinctTrigrams: stories.reduce((sum, { text }) => sum + distinctTrigrams(text), 0) / stories.length,
  };
}

export interface Comparison {
  readonly win: WinRate;
  /** All figures, as they go into results.json. */
  readonly numbers: Readonly<Record<string, unknown>>;
}

/** The aligned model against the base, story by story on the same opening and random numbers. */
export function compare(before: Measured, after: Measured): Comparison {
  const score = (measured: Measured, index: number) => (measured.verdicts[index]?.good ? 1 : 0);
  const win = winRate(before.stories.map((_, index) => [score(before, index), score(after, index)] as const));
  const figures = ({ good, logProbPerToken, repeating, distinctTrigrams }: Measured) => ({
    good,
    log_prob_per_token: logProbPerToken,
    repeating,
    distinct_trigrams: distinctTrigrams,
  });
  return {
    win,
    numbers: { stories: before.stories.length, base: figures(before), aligned: figures(after), win_rate: win },
  };
}
