/**
 * Text to token ids and back, as the model folder's tokenizer files say; the algorithms are @huggingface/tokenizers'.
 * Not chat templates. What a file can make of a text is limited (tokenizer-steps.ts).
 */
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { errorMessage, ModelFormatError, shown } from "../../errors.ts";
import { isJsonObject, type JsonObject, readJsonObject } from "../files/json-file.ts";
import { OutOfTimeError, platform } from "../platform/index.ts";
import { riskySteps } from "./tokenizer-steps.ts";

export interface EncodeOptions {
  /**
   * Put the tokenizer's leading special tokens (a beginning-of-sequence token, if it adds one) before the text, unless
   * the text begins with them already. Tokens that the tokenizer would add after a text are never added: a text to be
   * continued must not end. Default true.
   */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out of the text. Default false. */
  readonly skipSpecialTokens?: boolean;
}

export interface Tokenizer {
  encode(text: string, options?: EncodeOptions): number[];
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** One more than the largest token id; the model's own vocabulary may be padded to more. */
  readonly vocabSize: number;
  /** Whether `encode` puts a beginning-of-sequence token before a text. */
  readonly addsBos: boolean;
}

/**
 * Reads `tokenizer.json` and, where they exist, `tokenizer_config.json` and `special_tokens_map.json`.
 *
 * @throws ModelFormatError naming the file that is missing, is not JSON or cannot be understood
 */
export async function loadTokenizer(modelFolder: string): Promise<Tokenizer> {
  const path = platform.joinPath(modelFolder, "tokenizer.json");
  const tokenizerJson = await readJsonObject(path);
  if (!tokenizerJson) {
    throw new ModelFormatError(`${path} does not exist; without it text cannot be turned into tokens.`);
  }
  const config = (await readJsonObject(platform.joinPath(modelFolder, "tokenizer_config.json"))) ?? {};
  const specialTokens = (await readJsonObject(platform.joinPath(modelFolder, "special_tokens_map.json"))) ?? {};
  return createTokenizer(tokenizerJson, { ...specialTokens, ...config }, path);
}

/** Milliseconds that a file with risky steps may take for a text, and more for each character of it. */
const TIME_LIMIT_MS = 10_000;
const TIME_LIMIT_MS_PER_CHARACTER = 0.1;

/**
 * The tokenizer of parsed `tokenizer.json` and `tokenizer_config.json` contents.
 *
 * @param path of the tokenizer.json, for messages
 * @param timeLimitMs for a short text, if the file has steps that can take for ever
 * @throws ModelFormatError naming the file if it cannot be used. `encode` and `decode` throw it for a file whose steps
 *   take too long or make a text too long.
 */
export function createTokenizer(
  tokenizerJson: JsonObject,
  config: JsonObject,
  path = "tokenizer.json",
  timeLimitMs = TIME_LIMIT_MS,
): Tokenizer {
  checkIds(tokenizerJson, path);
  const risky = riskySteps(tokenizerJson, path);
  /** Runs the file's steps over a text, or tokens, of `length`. */
  const run = <T>(length: number, work: () => T): T => {
    try {
      // Only for files that need it: the limit costs 0.1 ms, and a short row of a dataset takes not much longer.
      if (risky.length === 0) return work();
      return platform.withinTime(timeLimitMs + length * TIME_LIMIT_MS_PER_CHARACTER, work);
    } catch (error) {
      if (error instanceof OutOfTimeError) {
        const suspects = risky.slice(0, 3).join(", ");
        throw new ModelFormatError(
          `${path} cannot be used: it takes too long over a text (${errorMessage(error)}), because of its step ${suspects}.`,
          { cause: error },
        );
      }
      if (!(error instanceof RangeError)) throw error;
      throw new ModelFormatError(
        `${path} cannot be used: it makes more of a text than memory can hold (${errorMessage(error)}).`,
        { cause: error },
      );
    }
  };
  let hub: HubTokenizer;
  let prefix: number[];
  try {
    hub = run(0, () => new HubTokenizer(tokenizerJson, config));
    prefix = run(0, () => leadingSpecialTokens(hub));
  } catch (error) {
    if (error instanceof ModelFormatError) throw error;
    throw new ModelFormatError(`${path} is not a tokenizer that can be used: ${errorMessage(error)}.`, {
      cause: error,
    });
  }
  // The config's own choice, and otherwise none: tidied spaces would make decoded text differ from the tokens' text.
  const cleanUpSpaces = config.clean_up_tokenization_spaces === true;
  const bosTokenId = specialTokenId(hub, config.bos_token);
  let vocabSize = 0;
  for (const id of hub.get_vocab(true).values()) vocabSize = Math.max(vocabSize, id + 1);
  return {
    bosTokenId,
    eosTokenId: specialTokenId(hub, config.eos_token),
    vocabSize,
    addsBos: bosTokenId !== undefined && prefix[0] === bosTokenId,
    encode(text, { addSpecialTokens = true } = {}) {
      const { ids } = run(text.length, () => hub.encode(text, { add_special_tokens: false }));
      if (!addSpecialTokens || prefix.every((id, i) => ids[i] === id)) return ids;
      return [...prefix, ...ids];
    },
    decode(ids, { skipSpecialTokens = false } = {}) {
      // The library refuses an empty list.
      if (ids.length === 0) return "";
      return run(ids.length, () =>
        hub.decode(Array.from(ids), {
          skip_special_tokens: skipSpecialTokens,
          clean_up_tokenization_spaces: cleanUpSpaces,
        }),
      );
    },
  };
}

/**
 * The text that `ids` add to `promptIds`. Decoding them alone would lose the space before their first word with
 * tokenizers that strip it from the start of a text.
 */
export function decodeContinuation(
  tokenizer: Tokenizer,
  promptIds: ArrayLike<number>,
  ids: ArrayLike<number>,
  options: DecodeOptions = { skipSpecialTokens: true },
): string {
  const prompt = tokenizer.decode(promptIds, options);
  const whole = tokenizer.decode([...Array.from(promptIds), ...Array.from(ids)], options);
  return whole.startsWith(prompt) ? whole.slice(prompt.length) : tokenizer.decode(ids, options);
}

/** More ids than any vocabulary has. */
const MOST_IDS = 2 ** 22;

/** The library takes any value for an id: a text would have it among its ids, and all ids up to it are gone through. */
function checkIds({ model, added_tokens: added }: JsonObject, path: string): void {
  const vocab = isJsonObject(model) ? model.vocab : undefined;
  // Unigram's is a list, whose places are the ids.
  const ids: [token: unknown, id: unknown][] = isJsonObject(vocab) ? Object.entries(vocab) : [];
  for (const token of Array.isArray(added) ? added : []) if (isJsonObject(token)) ids.push([token.content, token.id]);
  for (const [token, id] of ids) {
    if (Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < MOST_IDS) continue;
    throw new ModelFormatError(
      `${path}: the token ${shown(token, 40)} has ${shown(id, 40)} for an id, not a whole number below ${MOST_IDS}.`,
    );
  }
}

/** What the post-processor puts before a text; what it puts behind is not asked for. */
function leadingSpecialTokens(hub: HubTokenizer): number[] {
  const probe = "a";
  const plain: number[] = hub.encode(probe, { add_special_tokens: false }).ids;
  const whole: number[] = hub.encode(probe).ids;
  for (let start = 0; start + plain.length <= whole.length; start++) {
    if (plain.every((id, i) => whole[start + i] === id)) return whole.slice(0, start);
  }
  throw new Error("its post-processor does more than add tokens before and after a text");
}

/** A special token stands in the config as its text or as an object with its text. */
function specialTokenId(hub: HubTokenizer, token: unknown): number | undefined {
  const text = typeof token === "object" && token !== null ? (token as JsonObject).content : token;
  return typeof text === "string" ? hub.token_to_id(text) : undefined;
}
