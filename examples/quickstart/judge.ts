/**
 * The thumb of the quickstart: does a story, as far as it was told, end well? A rule on plain text, deterministic and
 * simple enough to read; it judges words, not meaning. It is strict about repetition, since a model that is rewarded
 * for happy words would otherwise learn to say one of them over and over.
 */

/** Words of gladness. Not "good", "nice" or "like", which these stories use for things of every kind. */
export const happyWords: ReadonlySet<string> = new Set(
  `cheered delighted enjoy enjoyed excited fun glad grateful happier happily happiness happy hug hugged hugging hugs joy
  joyful kissed laugh laughed laughing laughs love loved loves loving pleased proud proudly smile smiled smiles smiling
  thankful wonderful yay`.split(/\s+/),
);

/** Words of grief, fear, anger and harm. */
export const sadWords: ReadonlySet<string> = new Set(
  `afraid alone angrily angry ashamed bad broke broken cried cries cry crying danger dangerous die died disappointed
  fear fight fighting fought frightened frustrated gloomy grumpy hate hated hurt hurts jealous lonely lost mad mean
  nervous pain painful sad sadly sadness scared scary scream screamed shouted sick sorry stole tears terrible trouble
  ugly unhappy upset weak worried worse wrong yelled`.split(/\s+/),
);

const negations: ReadonlySet<string> = new Set(["no", "not", "never", "nobody", "without"]);

/** The number of last words that count as the ending, and of words before a happy word that can negate it. */
const endingWords = 20;
const negationReach = 3;
/** A happy word may stand in the ending at most so often. */
const mostUses = 2;
/** Sentences of fewer words ("Thank you!") may come twice. */
const shortSentence = 4;
/** The least share of different ones among all sequences of three words. */
const leastDistinct = 0.9;

export interface Verdict {
  /** Thumbs up. */
  readonly good: boolean;
  /** One of: "ends well", "too short", "repeats itself", "a sad ending", "no happy ending". */
  readonly reason: string;
}

/**
 * Judges what a model wrote after an opening (the opening itself is not part of it). Good is a text of at least 20
 * words that does not repeat itself and whose last 20 words hold a happy word, not denied, and no sad one. How often
 * happy words are used earns nothing.
 */
export function judgeStory(text: string): Verdict {
  const words = wordsOf(text);
  if (words.length < endingWords) return { good: false, reason: "too short" };
  if (repeatsSentence(text) || distinctTrigrams(text) < leastDistinct) return { good: false, reason: "repeats itself" };

  const start = words.length - endingWords;
  const uses = new Map<string, number>();
  for (let at = start; at < words.length; at++) {
    const word = words[at] ?? "";
    if (sadWords.has(word)) return { good: false, reason: "a sad ending" };
    if (!happyWords.has(word)) continue;
    const denied = words.slice(Math.max(0, at - negationReach), at).some(isNegation);
    if (denied) return { good: false, reason: "a sad ending" };
    uses.set(word, (uses.get(word) ?? 0) + 1);
  }
  if (uses.size === 0) return { good: false, reason: "no happy ending" };
  if (Math.max(...uses.values()) > mostUses) return { good: false, reason: "repeats itself" };
  return { good: true, reason: "ends well" };
}

/** Does a sentence of four words or more stand in the text twice? */
export function repeatsSentence(text: string): boolean {
  const seen = new Set<string>();
  for (const sentence of sentencesOf(text)) {
    if (sentence.split(" ").length < shortSentence) continue;
    if (seen.has(sentence)) return true;
    seen.add(sentence);
  }
  return false;
}

/** Different runs of three words as a share of all; 1 for a text of fewer than three words. */
export function distinctTrigrams(text: string): number {
  const words = wordsOf(text);
  const trigrams = words.slice(2).map((word, i) => `${words[i]} ${words[i + 1]} ${word}`);
  return trigrams.length === 0 ? 1 : new Set(trigrams).size / trigrams.length;
}

/** The sentences of a text as lower-case words with single spaces; the last one may be unfinished. */
export function sentencesOf(text: string): string[] {
  return text
    .split(/[.!?\n]+/)
    .map((sentence) => wordsOf(`${sentence}.`).join(" "))
    .filter((sentence) => sentence !== "");
}

/** A word at the very end may be a cut one ("fun" of "funny"), so it needs a sign behind it to count. */
function wordsOf(text: string): string[] {
  return (
    text
      .toLowerCase()
      .replace(/[a-z'’]+$/, "")
      .match(/[a-z]+(?:['’][a-z]+)?/g) ?? []
  );
}

function isNegation(word: string): boolean {
  return negations.has(word) || /n['’]t$/.test(word);
}
