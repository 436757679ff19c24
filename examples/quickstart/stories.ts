/**
 * Sampling stories and looking at them: what making feedback and measuring have in common. Stories are cut after
 * `storyTokens` tokens, which is about forty words; this small model seldom ends one before.
 */
import { Generator, type Model, type Tokenizer } from "../../src/index.ts";

export const modelFolder: string = `${import.meta.dirname}/model`;
export const feedbackFile: string = `${import.meta.dirname}/feedback.jsonl`;

/** Longest story in tokens, the opening not counted. */
export const storyTokens = 100;

export interface Story {
  readonly opening: string;
  /** The model's text after the opening, including the space between them. */
  readonly text: string;
  readonly promptIds: readonly number[];
  /** The tokens as sampled, without an end token. */
  readonly completionIds: readonly number[];
}

export interface StoryOptions {
  readonly perOpening: number;
  readonly seed: number;
  /** Told how many stories of how many are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Stories of a round: enough to keep a GPU busy, few enough for the progress to move. */
const roundSize = 64;

/**
 * Samples at temperature 1, `perOpening` stories for every opening: first one for each, then the next for each. The
 * story at a place depends on the weights, its opening, the seed and the place alone, so two models that are asked the
 * same draw from the same random numbers.
 */
export async function sampleStories(
  model: Model,
  tokenizer: Tokenizer,
  openings: readonly string[],
  options: StoryOptions,
): Promise<Story[]> {
  const asked = Array.from({ length: options.perOpening }, () => openings).flat();
  const prompts = asked.map((opening) => tokenizer.encode(opening));
  const maxLength = Math.max(...prompts.map((prompt) => prompt.length)) + storyTokens;
  const generator = new Generator(model, { maxBatch: roundSize, maxLength });
  const stories: Story[] = [];
  try {
    for (let first = 0; first < asked.length; first += roundSize) {
      const round = prompts.slice(first, first + roundSize);
      const sampled = await generator.generate(round, {
        maxNewTokens: storyTokens,
        temperature: 1,
        topK: 0,
        topP: 1,
        // Rounds must not repeat each other's random numbers; a generator's streams start again with each call.
        seed: options.seed * 2 ** 16 + first,
      });
      for (const [at, { ids }] of sampled.entries()) {
        const opening = asked[first + at] ?? "";
        const promptIds = round[at] ?? [];
        const whole = tokenizer.decode([...promptIds, ...ids], { skipSpecialTokens: true });
        stories.push({ opening, text: whole.slice(opening.length), promptIds, completionIds: ids });
      }
      options.onProgress?.(stories.length, asked.length);
    }
  } finally {
    generator.free();
  }
  return stories;
}

/**
 * Whether the text of opening and story gives the tokens back that were sampled. A model can sample a word in other
 * pieces than the tokenizer would cut it into; what is then trained on would not be what was judged.
 */
export function survivesTokenization(story: Story, tokenizer: Tokenizer): boolean {
  const wanted = [...story.promptIds, ...story.completionIds];
  const found = tokenizer.encode(story.opening + story.text);
  return found.length === wanted.length && found.every((id, at) => id === wanted[at]);
}
