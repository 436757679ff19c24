/**
 * What a tokenizer.json makes of each text besides looking up tokens: its steps are written by strangers, and some make
 * a short text take for ever, as the pattern "(a+)+$" or thirty replacements of "a" by "aa" do. This file says which
 * steps need a time limit, and refuses the ones that are absurd. It runs none of them (tokenizer.ts).
 */
import { ModelFormatError, shown } from "../../errors.ts";
import { isJsonObject, type JsonObject } from "../files/json-file.ts";

const MOST_STEPS = 100;
/** Characters that a step may put before a text or in place of one match. */
const MOST_INSERTED = 1000;
/** A text that grows no more than so many times is no danger. */
const HARMLESS_GROWTH = 64;

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const BEFORE = "[^\\r\\n\\p{L}\\p{N}]?";
const SPACES = "\\s+(?!\\S)|\\s+";

/** The split patterns of the usual tokenizers, each in the spellings that tokenizer.json files have. */
export const SPLIT_PATTERNS = {
  gpt2: [
    `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|${SPACES}`,
    `'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|${SPACES}`,
  ],
  // OLMo 2 and SmolLM 3 too.
  llama3: [`${CONTRACTIONS}|${BEFORE}\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|${SPACES}`],
  // Qwen 3 too.
  qwen2: [`${CONTRACTIONS}|${BEFORE}\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|${SPACES}`],
  qwen35: [
    `${CONTRACTIONS}|${BEFORE}[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|${SPACES}`,
  ],
  gpt4o: [
    `${BEFORE}${UPPER}*${LOWER}+${CONTRACTIONS}?|${BEFORE}${UPPER}+${LOWER}*${CONTRACTIONS}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|${SPACES}`,
  ],
  // Mistral's Tekken.
  tekken: [
    `${BEFORE}${UPPER}*${LOWER}+|${BEFORE}${UPPER}+${LOWER}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|${SPACES}`,
  ],
} as const;

/**
 * All of these. Each takes time in proportion to the text: whatever a branch reads and gives up is read and taken by
 * one of the branches after it.
 */
export const USUAL_PATTERNS: ReadonlySet<string> = new Set(Object.values(SPLIT_PATTERNS).flat());

/** One character or class of characters, repeated or not. */
const SINGLE_CLASS =
  /^(?:\[(?:[^\]\\]|\\.)+\]|\\[pP]\{\w+\}|\\.|[^\\()[\]{}*+?|^$])(?:[*+?]|\{\d{1,2}(?:,\d{0,2})?\})?$/u;

/**
 * The steps that need a time limit, in words; usually none.
 *
 * @param path of the tokenizer.json, for messages
 * @throws ModelFormatError for steps that are absurd, too many or with too much to insert, and for \G in a pattern,
 *   which the library would leave out without a word
 */
export function riskySteps(tokenizerJson: JsonObject, path: string): string[] {
  const { normalizer, pre_tokenizer: preTokenizer, decoder, model } = tokenizerJson;
  const risky: string[] = [];
  const longestWord = isJsonObject(model) ? model.max_input_chars_per_word : undefined;
  if (typeof longestWord === "number" && longestWord > MOST_INSERTED)
    risky.push(`words of up to ${longestWord} characters`);
  for (const [name, pipeline] of Object.entries({ normalizer, pre_tokenizer: preTokenizer, decoder })) {
    const steps = stepsOf(pipeline);
    const bad = (what: string) => new ModelFormatError(`${path}: the ${name} ${what}.`);
    if (steps.length > MOST_STEPS) throw bad(`has more than ${MOST_STEPS} steps`);
    const growing: string[] = [];
    let growth = 1;
    for (const step of steps) {
      if (step.type === "FixedLength" && !(Number.isSafeInteger(step.length) && (step.length as number) > 0)) {
        throw bad(`cuts a text into pieces of length ${shown(step.length)}, which is not a whole number above 0`);
      }
      const most = Math.max(...[step.prepend, step.content, step.str_rep, step.replacement].map(lengthOf));
      if (most > MOST_INSERTED) {
        throw bad(
          `inserts ${most} characters in its step ${shown(step.type)}; more than ${MOST_INSERTED} are not allowed`,
        );
      }
      const regex = isJsonObject(step.pattern) ? step.pattern.Regex : undefined;
      if (typeof regex === "string" && [...regex.matchAll(/\\./gs)].some(([escaped]) => escaped === "\\G")) {
        throw bad(
          `has the pattern ${shown(regex)} in its step ${shown(step.type)}, whose \\G (the end of the match before) would be lost here; give a tokenizer.json that splits without it`,
        );
      }
      const isRisky = typeof regex === "string" && !USUAL_PATTERNS.has(regex) && !SINGLE_CLASS.test(regex);
      if (isRisky) risky.push(`${shown(step.type, 40)} with the pattern ${shown(regex)}`);
      const factor = growthOf(step);
      growth *= factor;
      if (factor > 1 && !isRisky) growing.push(`${shown(step.type, 40)} of ${shown(step.pattern ?? step, 100)}`);
    }
    if (growth > HARMLESS_GROWTH) risky.push(...growing);
  }
  return risky;
}

/**
 * The steps of a pipeline, those of sequences in sequences among them; no more than are needed to see that it is too
 * many.
 */
export function stepsOf(pipeline: unknown): JsonObject[] {
  const steps: JsonObject[] = [];
  const open = [pipeline];
  while (open.length > 0 && steps.length <= MOST_STEPS) {
    const step = open.pop();
    if (!isJsonObject(step)) continue;
    steps.push(step);
    for (const list of [step.normalizers, step.pretokenizers, step.decoders])
      if (Array.isArray(list)) open.push(...list.toReversed());
  }
  return steps;
}

/** How many times as long a step can make a text, at most; what a step adds once is left out. */
function growthOf({ type, pattern, content, str_rep: inserted, replacement, suffix }: JsonObject): number {
  if (type === "ByteLevel") return 4;
  if (type === "Metaspace") return Math.max(1, lengthOf(inserted), lengthOf(replacement));
  if (type === "BPEDecoder" || type === "CTC" || type === "WordPiece")
    return suffix === undefined || suffix === "" ? 2 : 1;
  if (type !== "Replace" || !isJsonObject(pattern)) return 1;
  // A regular expression may match nothing between any two characters.
  return lengthOf(pattern.String) > 0
    ? Math.max(1, lengthOf(content) / lengthOf(pattern.String))
    : 1 + lengthOf(content);
}

function lengthOf(value: unknown): number {
  return typeof value === "string" ? value.length : 0;
}
