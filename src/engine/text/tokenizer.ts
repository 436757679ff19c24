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
  /**
   * The text goes on from another one, so that the space which SentencePiece's kind of tokenizer puts before a text is
   * left out: "ld" after "Hello wor" is "ld" and not " ld". Default false.
   */
  readonly continues?: boolean;
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
  let continuation: (text: string) => number[];
  try {
    hub = run(0, () => new HubTokenizer(tokenizerJson, config));
    prefix = run(0, () => leadingSpecialTokens(hub));
    continuation = continuationOf(tokenizerJson, config, hub);
  } catch (error) {
    if (error instanceof ModelFormatError) throw error;
    throw new ModelFormatError(`${path} is not a tokenizer that can be used: ${errorMessage(error)}.`, {
      cause: error,
    });
  }
  // Only if the config says so: cleaned-up spaces make the decoded text differ from the text of the tokens.
  const cleanUpSpaces = config.clean_up_tokenization_spaces === true;
  const bosTokenId = specialTokenId(hub, config.bos_token);
  let vocabSize = 0;
  for (const id of hub.get_vocab(true).values()) vocabSize = Math.max(vocabSize, id + 1);
  return {
    bosTokenId,
    eosTokenId: specialTokenId(hub, config.eos_token),
    vocabSize,
    addsBos: bosTokenId !== undefined && prefix[0] === bosTokenId,
    encode(text, { addSpecialTokens = true, continues = false } = {}) {
      const ids = run(text.length, () => (continues ? continuation(text) : encodeText(hub, text)));
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
 * The text that `ids` add to that of `promptIds`. Decoded alone, they would lose the space before their first word if
 * the tokenizer strips it from the start of a text.
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

/**
 * A function that encodes a text as the continuation of another, by the same tokenizer without what it puts before a
 * text. What follows a special token begins a text again: there ids are as in any text.
 */
function continuationOf(tokenizerJson: object, config: JsonObject, hub: HubTokenizer): (text: string) => number[] {
  const { normalizer = null, pre_tokenizer: preTokenizer = null } = tokenizerJson as JsonObject;
  const changed = { normalizer: withoutPrefix(normalizer), pre_tokenizer: withoutPrefix(preTokenizer) };
  if (changed.normalizer === normalizer && changed.pre_tokenizer === preTokenizer)
    return (text) => encodeText(hub, text);
  let bare: HubTokenizer | undefined;
  const added: ReadonlyMap<number, unknown> = hub.get_added_tokens_decoder();
  const firstAdded = (ids: readonly number[]) => ids.findIndex((id) => added.has(id));
  return (text) => {
    bare ??= new HubTokenizer({ ...tokenizerJson, ...changed }, config);
    const ids = encodeText(bare, text);
    const start = firstAdded(ids);
    if (start === -1) return ids;
    const whole = encodeText(hub, text);
    return [...ids.slice(0, start), ...whole.slice(firstAdded(whole))];
  };
}

function encodeText(hub: HubTokenizer, text: string): number[] {
  return hub.encode(text, { add_special_tokens: false }).ids;
}

/**
 * A part of a tokenizer.json, or a sequence of parts, that puts nothing before a text; the same one if it never did.
 */
function withoutPrefix(part: unknown): unknown {
  if (!isJsonObject(part)) return part;
  if (part.type === "Prepend") return null;
  if (part.type === "Metaspace") return { ...part, prepend_scheme: "never" };
  if (part.type === "ByteLevel" && part.add_prefix_space === true) return { ...part, add_prefix_space: false };
  if (part.type !== "Sequence") return part;
  const key = "normalizers" in part ? "normalizers" : "pretokenizers";
  const parts = (Array.isArray(part[key]) ? part[key] : []) as readonly unknown[];
  // After a split at white space the prefix stands for the space before each word.
  if (parts.some((one) => isJsonObject(one) && one.type === "WhitespaceSplit")) return part;
  const bare = parts.map(withoutPrefix);
  if (bare.every((one, i) => one === parts[i])) return part;
  return { ...part, [key]: bare.filter((one) => one !== null) };
}

/** More ids than any vocabulary has. */
const MOST_IDS = 2 ** 22;

/** The library accepts any value as an id. It would appear among a text's ids, and loops go over all ids up to it. */
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

/** The tokens that the post-processor puts before a text. Those that it puts after a text are not used. */
function leadingSpecialTokens(hub: HubTokenizer): number[] {
  const probe = "a";
  const plain: number[] = hub.encode(probe, { add_special_tokens: false }).ids;
  const whole: number[] = hub.encode(probe).ids;
  for (let start = 0; start + plain.length <= whole.length; start++) {
    if (plain.every((id, i) => whole[start + i] === id)) return whole.slice(0, start);
  }
  throw new Error("its post-processor does more than add tokens before and after a text");
}

/** The id of a special token, which the config gives as a text or as an object with its text. */
function specialTokenId(hub: HubTokenizer, token: unknown): number | undefined {
  const text = typeof token === "object" && token !== null ? (token as JsonObject).content : token;
  return typeof text === "string" ? hub.token_to_id(text) : undefined;
}
