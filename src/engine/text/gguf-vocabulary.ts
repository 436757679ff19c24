/**
 * A tokenizer.json as the metadata of a GGUF file, which llama.cpp's own tokenizers read: byte-level BPE ("gpt2", with
 * the name of the pattern that splits a text) and SentencePiece's BPE ("llama", whose merges become scores). A
 * tokenizer that llama.cpp would follow differently is refused, or told of where only rare texts differ. Chat templates
 * are added in model/export. Read in llama.cpp's src/llama-vocab.cpp; agreement is tested against it.
 */
import { counted, ModelFormatError, shown } from "../../errors.ts";
import type { GgufMetadata, GgufValue } from "../files/gguf.ts";
import { isJsonObject, type JsonObject } from "../files/json-file.ts";
import { SPLIT_PATTERNS, stepsOf } from "./tokenizer-steps.ts";

/** llama.cpp's kinds of tokens. */
const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The special tokens that a model was trained with. */
export interface SpecialIds {
  readonly bos: number | undefined;
  /** Ends of a generation; the first is the end of a text. */
  readonly ends: readonly number[];
  /** Whether a beginning-of-sequence token is put before each text. */
  readonly addsBos: boolean;
}

export interface Vocabulary {
  readonly metadata: GgufMetadata;
  /** Sentences on texts that llama.cpp cuts otherwise. */
  readonly warnings: readonly string[];
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** The parts of a tokenizer.json that matter here, checked. */
interface Parsed {
  readonly path: string;
  readonly json: JsonObject;
  readonly model: JsonObject;
  readonly vocab: ReadonlyMap<string, number>;
  readonly merges: readonly (readonly [left: string, right: string])[];
  readonly added: readonly AddedToken[];
}

/**
 * @param vocabSize rows of the model's embedding; ids without a token are filled up
 * @param config of tokenizer_config.json and special_tokens_map.json
 * @param path of the tokenizer.json, for messages
 * @throws ModelFormatError naming the step that llama.cpp's tokenizers do not have
 */
export function ggufVocabulary(
  json: JsonObject,
  config: JsonObject,
  vocabSize: number,
  special: SpecialIds,
  path: string,
): Vocabulary {
  const parsed = parse(json, path);
  const isByteLevel = stepsOf(json.pre_tokenizer).some(({ type }) => type === "ByteLevel");
  const { entries, warnings } = isByteLevel ? byteLevel(parsed) : sentencePiece(parsed);
  const texts = new Map([...parsed.vocab].map(([text, id]) => [id, text]));
  for (const { id, content } of parsed.added) texts.set(id, content);
  const beyond = [...texts.keys()].filter((id) => id >= vocabSize).length;
  if (beyond > 0) {
    throw new ModelFormatError(
      `${path} has ${counted(beyond, "token")} beyond the ${vocabSize} of the model's embedding, which llama.cpp does not read; remove them from the tokenizer or resize the embedding.`,
    );
  }
  const tokens: string[] = [];
  const kinds = new Int32Array(vocabSize);
  const added = new Map(parsed.added.map((token) => [token.id, token]));
  for (let id = 0; id < vocabSize; id++) {
    const text = texts.get(id);
    tokens.push(text === undefined ? `[PAD${id}]` : textOf(text, added.get(id), isByteLevel));
    kinds[id] = text === undefined ? KIND.unused : kindOf(text, added.get(id), parsed, isByteLevel);
  }
  const metadata = new Map<string, GgufValue>([
    ["tokenizer.ggml.model", isByteLevel ? "gpt2" : "llama"],
    ["tokenizer.ggml.pre", isByteLevel ? preTokenizerName(parsed) : "default"],
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.token_type", kinds],
    ...entries(vocabSize),
    ...specialEntries(special, config, texts, parsed, warnings),
  ]);
  return { metadata, warnings };
}

function parse(json: JsonObject, path: string): Parsed {
  const { model, added_tokens: added } = json;
  const bad = (what: string) => new ModelFormatError(`${path}: ${what}, which llama.cpp's tokenizers do not have.`);
  if (!isJsonObject(model) || model.type !== "BPE" || !isJsonObject(model.vocab)) {
    throw bad(`the model is of type ${shown(isJsonObject(model) ? model.type : model, 40)}`);
  }
  for (const key of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if ((model[key] ?? "") !== "") throw bad(`"${key}" is ${shown(model[key], 40)}`);
  }
  const merges = Array.isArray(model.merges) ? model.merges : [];
  return {
    path,
    json,
    model,
    vocab: new Map(Object.entries(model.vocab as Record<string, number>)),
    merges: merges.map((merge: unknown) => pairOf(merge, path)),
    added: (Array.isArray(added) ? added : []).filter(isJsonObject).map((token) => ({
      id: token.id as number,
      content: String(token.content),
      special: token.special === true,
    })),
  };
}

/** A merge is a list of two texts, or one text with a space between them. */
function pairOf(merge: unknown, path: string): readonly [string, string] {
  const parts = typeof merge === "string" ? merge.split(" ") : merge;
  const [left, right, ...more] = Array.isArray(parts) ? (parts as readonly unknown[]) : [];
  if (typeof left === "string" && typeof right === "string" && more.length === 0) return [left, right];
  throw new ModelFormatError(`${path}: the merge ${shown(merge, 40)} is not one of two tokens.`);
}

interface Kind {
  /** What only this kind of tokenizer has. */
  readonly entries: (vocabSize: number) => readonly (readonly [string, GgufValue])[];
  readonly warnings: string[];
}

// ---- byte-level BPE

/** The names of split patterns, and whether llama.cpp takes a word that is a token whole before it merges. */
const PRE_TOKENIZERS: readonly {
  readonly patterns: readonly string[];
  readonly digitsApart?: true;
  readonly ignoresMerges: boolean;
  readonly name: string;
}[] = [
  { patterns: SPLIT_PATTERNS.gpt2, ignoresMerges: false, name: "gpt-2" },
  { patterns: SPLIT_PATTERNS.gpt2, digitsApart: true, ignoresMerges: false, name: "smollm" },
  { patterns: SPLIT_PATTERNS.llama3, ignoresMerges: true, name: "llama-bpe" },
  { patterns: SPLIT_PATTERNS.llama3, ignoresMerges: false, name: "dbrx" },
  { patterns: SPLIT_PATTERNS.qwen2, ignoresMerges: false, name: "qwen2" },
  { patterns: SPLIT_PATTERNS.qwen35, ignoresMerges: false, name: "qwen35" },
  { patterns: SPLIT_PATTERNS.gpt4o, ignoresMerges: false, name: "gpt-4o" },
  { patterns: SPLIT_PATTERNS.tekken, ignoresMerges: true, name: "tekken" },
];

function byteLevel({ path, json, merges }: Parsed): Kind {
  const warnings: string[] = [];
  for (const { type } of stepsOf(json.normalizer)) {
    if (type === "Sequence") continue;
    if (type !== "NFC") throw noStep(path, "normalizer", type);
    warnings.push(
      `${path} brings a text to Unicode's form NFC first, and llama.cpp does not: texts in another form, which few are, have other tokens there.`,
    );
  }
  return {
    entries: () => [["tokenizer.ggml.merges", merges.map(([left, right]) => `${left} ${right}`)]],
    warnings,
  };
}

/** llama.cpp's name for how a byte-level tokenizer splits a text. */
function preTokenizerName({ path, json, model }: Parsed): string {
  const patterns: string[] = [];
  let digitsApart = false;
  for (const step of stepsOf(json.pre_tokenizer)) {
    if (step.type === "Sequence") continue;
    if (step.type === "ByteLevel") {
      if (step.add_prefix_space === true) throw noStep(path, "pre_tokenizer", "ByteLevel with add_prefix_space");
      if (step.use_regex !== false) patterns.push(SPLIT_PATTERNS.gpt2[0]);
    } else if (step.type === "Digits" && step.individual_digits === true) {
      digitsApart = true;
    } else if (step.type === "Split" && isJsonObject(step.pattern) && typeof step.pattern.Regex === "string") {
      if (step.behavior !== "Isolated" || step.invert === true) throw noStep(path, "pre_tokenizer", step.behavior);
      patterns.push(step.pattern.Regex);
    } else {
      throw noStep(path, "pre_tokenizer", step.type);
    }
  }
  const [pattern = "", ...more] = patterns;
  const ignoresMerges = model.ignore_merges === true;
  const found =
    more.length === 0 &&
    PRE_TOKENIZERS.find(
      (one) =>
        one.patterns.includes(pattern) &&
        (one.digitsApart ?? false) === digitsApart &&
        one.ignoresMerges === ignoresMerges,
    );
  if (found) return found.name;
  const whole = ignoresMerges ? " and ignore_merges" : "";
  throw new ModelFormatError(
    `${path}: the pre_tokenizer splits a text by ${shown(patterns)}${whole}, a way that llama.cpp has no name for here; export a model with the tokenizer of GPT-2, Llama, Qwen, SmolLM, Mistral or OLMo.`,
  );
}

// ---- SentencePiece's BPE

/** Below every merge's score. */
const NOT_MERGED = -1e6;

function sentencePiece(parsed: Parsed): Kind {
  const { path, model, vocab, added } = parsed;
  if (model.byte_fallback !== true) throw noStep(path, "model", "BPE without bytes to fall back to");
  const { spaceBefore, onlyAtStart } = spaces(parsed);
  const { scores, others } = mergeScores(parsed);
  const warnings: string[] = [];
  if (onlyAtStart) {
    warnings.push(
      `${path} puts a space before the beginning of a text only; llama.cpp does it after each special token too, so chats may have other tokens there.`,
    );
  }
  if (others > 0) {
    warnings.push(
      `${path} has ${counted(others, "merge")} that llama.cpp orders otherwise or adds of itself, so some words have other tokens there.`,
    );
  }
  const special = new Set(added.map(({ id }) => id));
  return {
    entries: (vocabSize) => {
      const all = new Float32Array(vocabSize).fill(NOT_MERGED);
      for (const [text, id] of vocab) if (!special.has(id)) all[id] = scores.get(text) ?? NOT_MERGED;
      return [
        ["tokenizer.ggml.scores", all],
        ["tokenizer.ggml.add_space_prefix", spaceBefore],
        ["tokenizer.ggml.remove_extra_whitespaces", false],
      ];
    },
    warnings,
  };
}

/** Whether a space goes before a text; llama.cpp writes spaces as "▁" itself. */
function spaces({ path, json }: Parsed): { readonly spaceBefore: boolean; readonly onlyAtStart: boolean } {
  let spaceBefore = false;
  let onlyAtStart = false;
  let replaced = false;
  for (const [part, pipeline] of Object.entries({ normalizer: json.normalizer, pre_tokenizer: json.pre_tokenizer })) {
    for (const step of stepsOf(pipeline)) {
      const from = isJsonObject(step.pattern) ? step.pattern.String : undefined;
      if (step.type === "Sequence") continue;
      if (step.type === "Prepend" && step.prepend === "▁") spaceBefore = true;
      else if (step.type === "Replace" && from === " " && step.content === "▁") replaced = true;
      else if (step.type === "Metaspace" && (step.replacement ?? "▁") === "▁" && step.split !== true) {
        replaced = true;
        const scheme = step.prepend_scheme ?? (step.add_prefix_space === false ? "never" : "always");
        spaceBefore ||= scheme !== "never";
        onlyAtStart = scheme === "first";
      } else if (!(step.type === "Split" && from === " ")) {
        // Gemma splits at spaces when there are none left: its normalizer has replaced them.
        throw noStep(path, part, step.type);
      }
    }
  }
  if (!replaced) throw noStep(path, "normalizer", "one that leaves spaces as they are");
  return { spaceBefore, onlyAtStart };
}

/**
 * A score for each token that merges make: llama.cpp merges the two neighbours whose text is the token of the highest
 * score, tokenizer.json by the order of its merges. `others` counts where the two cannot agree: merges of one token
 * that lie among those of another, and pairs that make a token without being listed.
 */
function mergeScores({ merges, vocab }: Parsed): {
  readonly scores: ReadonlyMap<string, number>;
  readonly others: number;
} {
  const scores = new Map<string, number>();
  const listed = new Set<string>();
  let others = 0;
  let last = "";
  for (const [left, right] of merges) {
    const made = left + right;
    listed.add(`${left} ${right}`);
    if (!scores.has(made)) scores.set(made, -scores.size);
    else if (made !== last) others++;
    last = made;
  }
  for (const text of vocab.keys()) {
    const characters = [...text];
    let left = "";
    for (const character of characters.slice(0, -1)) {
      left += character;
      const right = text.slice(left.length);
      if (vocab.has(left) && vocab.has(right) && !listed.has(`${left} ${right}`)) others++;
    }
  }
  return { scores, others };
}

// ---- both

function textOf(text: string, added: AddedToken | undefined, isByteLevel: boolean): string {
  // llama.cpp compares such a token with a text whose spaces are spaces.
  return added && !added.special && !isByteLevel ? text.replaceAll("▁", " ") : text;
}

function kindOf(text: string, added: AddedToken | undefined, { model }: Parsed, isByteLevel: boolean): number {
  if (!isByteLevel && text === model.unk_token) return KIND.unknown;
  if (added) return added.special ? KIND.control : KIND.userDefined;
  return !isByteLevel && /^<0x[0-9A-F]{2}>$/.test(text) ? KIND.byte : KIND.normal;
}

/**
 * Which tokens begin and end texts. llama.cpp knows an end of text, of a turn and of a message, and the usual ones by
 * their text.
 */
function specialEntries(
  { bos, ends, addsBos }: SpecialIds,
  config: JsonObject,
  texts: ReadonlyMap<number, string>,
  { path, model, vocab, added }: Parsed,
  warnings: string[],
): (readonly [string, GgufValue])[] {
  const idOf = (token: unknown): number | undefined => {
    const text = isJsonObject(token) ? token.content : token;
    if (typeof text !== "string") return undefined;
    return added.find(({ content }) => content === text)?.id ?? vocab.get(text);
  };
  const [end, turn, message, ...more] = ends;
  if (end === undefined) {
    warnings.push(`${path} and config.json name no token that ends a text, so llama.cpp takes one of its own choice.`);
  }
  if (more.length > 0) {
    const names = more.map((id) => shown(texts.get(id) ?? id, 40)).join(", ");
    warnings.push(`A GGUF file has three places for tokens that end a generation; ${names} found none.`);
  }
  const ids = {
    bos_token_id: bos,
    eos_token_id: end,
    eot_token_id: turn,
    eom_token_id: message,
    unknown_token_id: idOf(config.unk_token) ?? idOf(model.unk_token),
    padding_token_id: idOf(config.pad_token),
  };
  return [
    ...Object.entries(ids).flatMap(([key, id]) =>
      id === undefined ? [] : [[`tokenizer.ggml.${key}`, { u32: id }] as const],
    ),
    ["tokenizer.ggml.add_bos_token", addsBos && bos !== undefined],
    ["tokenizer.ggml.add_eos_token", false],
  ];
}

function noStep(path: string, part: string, what: unknown): ModelFormatError {
  return new ModelFormatError(
    `${path}: the ${part} has a step that llama.cpp's tokenizers do not have: ${typeof what === "string" ? what : shown(what, 40)}.`,
  );
}
