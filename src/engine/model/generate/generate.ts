/**
 * Generation with a key/value cache: prefill passes over all prompts, then one row a sequence and token. Sequences that
 * have ended leave the pass. Each sequence draws from a generator of its own, so its tokens do not depend on which
 * others are generated beside it. The passes themselves are in `passes.ts`.
 */
import { ConfigError, counted, NumericError } from "../../../errors.ts";
import { NO_TOKEN } from "../../../kernels/next-token.ts";
import type { Device } from "../../gpu/device.ts";
import { OneAtATime } from "../../one-at-a-time.ts";
import { Random } from "../../random.ts";
import { longRopeBeyond } from "../config/config.ts";
import type { Model } from "../model.ts";
import { keptRows, stateSizes } from "../states.ts";
import { type DrawnRow, Passes, type Row, type TokenDraw } from "./passes.ts";
import { drawsFromAll, type SamplingOptions, sampleToken } from "./sample.ts";

export interface GenerateOptions extends SamplingOptions {
  readonly maxNewTokens: number;
  readonly seed: number;
  /**
   * The place of each prompt in a list of which these are a part: what it draws by, and what messages and `onToken` call
   * it, so that its tokens are those that it has among all. Default: 0, 1, 2 and so on.
   */
  readonly places?: readonly number[];
  /** Ends a sequence; not part of what is returned. Default: the model's. */
  readonly eosTokenIds?: readonly number[];
  /**
   * Called for every new token, with the prompt's place (see `places`) and the continuation so far, whose last id is the new one.
   * "stop" ends the sequence after it. Sequences generated side by side take turns; end tokens are not passed on.
   */
  readonly onToken?: (promptIndex: number, ids: readonly number[]) => "stop" | undefined;
  /**
   * With a single prompt: reuse the keys and values of its first tokens that the cache still holds from the call
   * before, as the turns of a conversation do. The model's weights must not have changed. Matmuls may then add in
   * another order, so that logits can differ in their last bits. Layers with a state (LFM2, Qwen3.5) go on and never
   * back: it has an effect there where the prompt begins with all that the call before went over. Default false.
   */
  readonly reusePrefix?: boolean;
}

export interface GeneratedSequence {
  readonly ids: number[];
  /** "eos", "stop" when onToken ended it, or "length" when maxNewTokens or the model's context did. */
  readonly finish: "eos" | "stop" | "length";
}

export interface GeneratorOptions {
  /** Sequences generated side by side; more prompts take several rounds. */
  readonly maxBatch?: number;
  /** Tokens of prompt and continuation together, per sequence; at most the model's context. */
  readonly maxLength: number;
  /** Tokens of each sequence for which the cache has room at first; it doubles whenever they are more. Default 256. */
  readonly startLength?: number;
}

const START_LENGTH = 256;

interface Sequence {
  /** The position of its prompt in the list that the caller gave. */
  readonly index: number;
  readonly slot: number;
  /** Where the host draws. */
  readonly random: Random;
  /** Where the device does. */
  readonly draw: TokenDraw;
  readonly prompt: ArrayLike<number>;
  readonly ids: number[];
  finish: GeneratedSequence["finish"];
  /** The token that ended it, which is none of its ids. */
  end: number | undefined;
  /** How many of its tokens passes have gone over: of those ahead, the end token too. */
  passed: number;
}

/**
 * Continues prompts with one model, with memory for a fixed number of sequences; the cache grows with their tokens.
 * Throws ConfigError for sizes and options out of range, AdapterError when the memory does not fit; `free` gives it
 * back.
 */
export class Generator {
  readonly device: Device;
  readonly model: Model;
  /** Sequences side by side. */
  readonly #slots: number;
  readonly #maxLength: number;
  readonly #passes: Passes;
  /** Tokens beyond which the model's LongRoPE takes its long factors. */
  readonly #longBeyond: number;
  /** The tokens that passes of the first slot have gone over: whose keys and values it holds, and behind which its states are. */
  #cached: number[] = [];
  /** Two calls would write into one cache. */
  readonly #calls = new OneAtATime();

  /**
   * Allocates the cache and scratch for this many sequences. Throws ConfigError if maxLength exceeds the context or
   * either is no whole number of at least 1, AdapterError if the adapter cannot hold it.
   */
  constructor(model: Model, { maxBatch = 64, maxLength, startLength = START_LENGTH }: GeneratorOptions) {
    const { device, config } = model;
    if (!Number.isInteger(maxBatch) || maxBatch < 1) {
      throw new ConfigError(`maxBatch is ${maxBatch}; it must be a whole number of at least 1.`);
    }
    if (!Number.isInteger(startLength) || startLength < 1) {
      throw new ConfigError(`startLength is ${startLength}; it must be a whole number of at least 1.`);
    }
    if (!(maxLength >= 1) || !(Number.isInteger(maxLength) || maxLength === Number.POSITIVE_INFINITY)) {
      throw new ConfigError(`maxLength is ${maxLength}; it must be a whole number of at least 1.`);
    }
    if (maxLength > config.contextLength) {
      throw new ConfigError(
        `Prompt and new tokens together may take ${maxLength} tokens, but the model's context is ${config.contextLength}; ask for fewer new tokens or give a shorter prompt.`,
      );
    }
    this.device = device;
    this.model = model;
    const most = Generator.mostSideBySide(model, maxLength);
    if (maxBatch > most) {
      device.refuse(
        `The keys of ${counted(maxBatch, "sequence")} of ${maxLength} tokens do not fit one binding of the adapter "${device.description}"; ${most === 0 ? "take shorter sequences (max_length, max_new_tokens)" : `take ${most} or fewer, or shorter ones`}.`,
      );
    }
    this.#slots = maxBatch;
    this.#maxLength = maxLength;
    this.#passes = new Passes(model, { slots: maxBatch, start: startLength, most: maxLength });
    this.#longBeyond = longRopeBeyond(config) ?? Number.POSITIVE_INFINITY;
  }

  /** Bytes of the keys and values, now and of sequences of maxLength tokens. */
  get cacheBytes(): { readonly now: number; readonly most: number } {
    return this.#passes.cacheBytes;
  }

  /** How many sequences of this many tokens fit one binding of the adapter with one layer's keys, values or state. */
  static mostSideBySide({ device, config }: Model, maxLength: number): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
    const keys = maxLength * config.keyValueHeads * config.headSize;
    const bytes = 4 * Math.max(keys, stateSizes(config)?.delta ?? 0);
    return Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize) / bytes);
  }

  /**
   * Continues each prompt (one token or more). Results are in the order of the prompts. A call waits for those before
   * it.
   *
   * @throws ConfigError for an option out of range and for a prompt that the model or the cache cannot take;
   * NumericError when the model's logits are not finite
   */
  async generate(prompts: readonly ArrayLike<number>[], options: GenerateOptions): Promise<GeneratedSequence[]> {
    checkOptions(options);
    prompts.forEach((prompt, index) => {
      this.#checkPrompt(prompt, (options.places?.[index] ?? index) + 1);
    });
    return await this.#calls.run(async () => {
      const results: GeneratedSequence[] = [];
      for (let first = 0; first < prompts.length; first += this.#slots) {
        const round = prompts.slice(first, first + this.#slots);
        results.push(...(await this.#round(round, first, options)));
      }
      return results;
    });
  }

  #checkPrompt(prompt: ArrayLike<number>, number: number): void {
    const { vocabSize } = this.model.config;
    if (prompt.length === 0) throw new ConfigError(`Prompt ${number} has no tokens; give it one or more.`);
    if (prompt.length >= this.#maxLength) {
      throw new ConfigError(
        `Prompt ${number} has ${prompt.length} tokens, which leaves no room for new ones within ${this.#maxLength}.`,
      );
    }
    const outside = Array.from(prompt).find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
    if (outside !== undefined) {
      throw new ConfigError(`Prompt ${number} holds token ${outside}, outside the vocabulary of ${vocabSize}.`);
    }
  }

  async #round(
    prompts: readonly ArrayLike<number>[],
    first: number,
    options: GenerateOptions,
  ): Promise<GeneratedSequence[]> {
    const eos = new Set(options.eosTokenIds ?? this.model.config.eosTokenIds);
    const sequences = prompts.map((prompt, slot): Sequence => {
      const index = options.places?.[first + slot] ?? first + slot;
      const [random, keys] = [new Random(options.seed, index), new Random(options.seed, index)];
      const draw: TokenDraw = { key: [keys.uint32(), keys.uint32()], temperature: options.temperature };
      return { index, slot, random, draw, prompt, ids: [], finish: "length", end: undefined, passed: 0 };
    });
    const [prompt = []] = prompts;
    const fits = this.#isLong(this.#cached.length) === this.#isLong(prompt.length);
    const mayReuse = options.reusePrefix && prompts.length === 1;
    const common = mayReuse && fits ? commonLength(this.#cached, prompt) : 0;
    const reused = keptRows(this.model.config) === 0 || common === this.#cached.length ? common : 0;
    this.#cached = []; // until the passes have been made
    /** Adds a token to its sequence; returns whether that goes on. */
    const take = (sequence: Sequence, token: number): boolean => {
      if (token === NO_TOKEN) throw this.#notFinite(sequence);
      if (eos.has(token)) {
        sequence.finish = "eos";
        sequence.end = token;
        return false;
      }
      sequence.ids.push(token);
      if (options.onToken?.(sequence.index, sequence.ids) === "stop") {
        sequence.finish = "stop";
        return false;
      }
      return this.#mayGrow(sequence, options, 0);
    };
    const onDevice = drawsFromAll(options);
    const tokens = await this.#prefill(sequences, reused, onDevice ? undefined : options);
    const active = sequences.filter((sequence, at) => take(sequence, tokens[at] ?? NO_TOKEN));
    if (onDevice) await this.#goOnAhead(active, options, take);
    else await this.#goOnByLogits(active, options, take);
    const [held] = sequences;
    if (held) this.#cached = [...tokensOf(held), held.end ?? NO_TOKEN].slice(0, held.passed);
    return sequences.map(({ ids, finish }) => ({ ids, finish }));
  }

  #notFinite(sequence: Sequence): NumericError {
    return new NumericError(
      `Prompt ${sequence.index + 1}: the logits after ${lengthOf(sequence)} tokens are not finite numbers; the weights of ${this.model.folder} overflow f32.`,
    );
  }

  /** Whether a sequence that gets `more` tokens may get yet another one behind them. */
  #mayGrow(sequence: Sequence, { maxNewTokens }: GenerateOptions, more: number): boolean {
    return sequence.ids.length + more < maxNewTokens && lengthOf(sequence) + more < this.#maxLength;
  }

  /** Runs all prompt tokens but the first `reused`; returns the token that follows each prompt. */
  async #prefill(sequences: readonly Sequence[], reused: number, sampling?: GenerateOptions): Promise<number[]> {
    const next: number[] = [];
    let rows: Row[] = [];
    let lasts: { row: number; sequence: Sequence }[] = [];
    this.#passes.hold(Math.max(...sequences.map(lengthOf)));
    await this.#passes.readAdapter();
    const flush = async () => {
      const heads = lasts.map(({ row }) => row);
      const draws = lasts.map(({ sequence }) => sequence.draw);
      if (sampling === undefined) next.push(...(await this.#passes.tokens(rows, heads, draws)));
      else {
        const logits = await this.#passes.logits(rows, heads);
        next.push(...lasts.map(({ sequence }, at) => this.#draw(sequence, logits(at), sampling)));
      }
      rows = [];
      lasts = [];
    };
    for (const sequence of sequences) {
      const isLong = this.#isLong(sequence.prompt.length);
      for (let position = reused; position < sequence.prompt.length; position++) {
        if (rows.length === this.#passes.mostRows) await flush();
        rows.push({ token: sequence.prompt[position] ?? 0, position, slot: sequence.slot, isLong });
      }
      lasts.push({ row: rows.length - 1, sequence });
      sequence.passed = sequence.prompt.length;
    }
    await flush();
    return next;
  }

  /** Whether LongRoPE's long factors hold for a sequence of this length. */
  #isLong(length: number): boolean {
    return length > this.#longBeyond;
  }

  /**
   * Whether the device can make the row of a sequence's next token from that of its last: not where the next one makes it
   * long to LongRoPE, nor in a sliding window of one that is long, which the device would count by marked positions.
   */
  #runsAhead(sequence: Sequence): boolean {
    if (!this.#isLong(lengthOf(sequence) + 1)) return true;
    return this.#isLong(lengthOf(sequence)) && this.model.config.slidingWindow === undefined;
  }

  /**
   * The rows of the sequences' last tokens. One that has just become long to LongRoPE has its earlier keys computed
   * again by the long factors, since these turn every position.
   */
  async #lastRows(sequences: readonly Sequence[]): Promise<DrawnRow[]> {
    const becomesLong = (length: number) => this.#isLong(length) && !this.#isLong(length - 1);
    for (const sequence of sequences.filter((one) => becomesLong(lengthOf(one)))) {
      const { slot } = sequence;
      const earlier = [...tokensOf(sequence)].slice(0, -1);
      const rows = earlier.map((token, position) => ({ token, position, slot, isLong: true }));
      for (let first = 0; first < rows.length; first += this.#passes.mostRows) {
        await this.#passes.tokens(rows.slice(first, first + this.#passes.mostRows), [], []);
      }
    }
    return sequences.map((sequence) => {
      sequence.passed = lengthOf(sequence);
      return {
        token: sequence.ids.at(-1) ?? 0,
        position: lengthOf(sequence) - 1,
        slot: sequence.slot,
        isLong: this.#isLong(lengthOf(sequence)),
        draw: sequence.draw,
      };
    });
  }

  #draw(sequence: Sequence, logits: Float32Array, options: GenerateOptions): number {
    for (let i = 0; i < logits.length; i++) if (!Number.isFinite(logits[i])) throw this.#notFinite(sequence);
    return sampleToken(logits, options, sequence.random, tokensOf(sequence));
  }

  /** Passes whose logits the host reads, to draw from them. */
  async #goOnByLogits(
    sequences: Sequence[],
    options: GenerateOptions,
    take: (sequence: Sequence, token: number) => boolean,
  ): Promise<void> {
    for (let active = sequences; active.length > 0; ) {
      this.#passes.hold(Math.max(...active.map(lengthOf)));
      const logits = await this.#passes.logits(await this.#lastRows(active), [...active.keys()]);
      active = active.filter((sequence, at) => take(sequence, this.#draw(sequence, logits(at), options)));
    }
  }

  /**
   * Passes that take their tokens on the device: each is submitted before the host has read the tokens of the one
   * before, as long as all its sequences go on. When one ends, what the pass ahead computed for it is dropped.
   */
  async #goOnAhead(
    sequences: Sequence[],
    options: GenerateOptions,
    take: (sequence: Sequence, token: number) => boolean,
  ): Promise<void> {
    for (let active = sequences; active.length > 0; ) {
      this.#passes.hold(Math.max(...active.map(lengthOf)));
      let submitted = await this.#passes.start(await this.#lastRows(active));
      for (let allGoOn = true; allGoOn; ) {
        const room = Math.max(...active.map(lengthOf)) < this.#passes.cacheLength;
        const useful = active.some((sequence) => this.#mayGrow(sequence, options, 1));
        const possible = room && active.every((sequence) => this.#runsAhead(sequence));
        const ahead = possible && useful ? this.#passes.next() : undefined;
        if (ahead) for (const sequence of active) sequence.passed++;
        const tokens = await submitted.tokens;
        const goesOn = active.map((sequence, at) => take(sequence, tokens[at] ?? NO_TOKEN));
        allGoOn = ahead !== undefined && goesOn.every((on) => on);
        if (ahead !== undefined && allGoOn) {
          submitted = ahead;
          continue;
        }
        const later = goesOn.includes(true) ? await ahead?.tokens : undefined;
        active = active.filter(
          (sequence, at) => goesOn[at] && (later === undefined || take(sequence, later[at] ?? NO_TOKEN)),
        );
      }
    }
  }

  /** Gives the device memory back. */
  free(): void {
    this.#passes.free();
  }
}

/** Tokens of prompt and continuation. */
const lengthOf = ({ prompt, ids }: Sequence) => prompt.length + ids.length;

/** Prompt and continuation. */
function* tokensOf({ prompt, ids }: Sequence): Iterable<number> {
  for (let i = 0; i < prompt.length; i++) yield prompt[i] ?? 0;
  yield* ids;
}

/** How many tokens at the prompt's start are cached; the last one is always run, for its logits. */
function commonLength(cached: readonly number[], prompt: ArrayLike<number>): number {
  let length = 0;
  while (length < Math.min(cached.length, prompt.length - 1) && cached[length] === prompt[length]) length++;
  return length;
}

function checkOptions(options: GenerateOptions): void {
  const { maxNewTokens, temperature, topK, topP, minP = 0, repetitionPenalty = 1 } = options;
  const refuse = (name: string, value: number, expected: string) => {
    throw new ConfigError(`${name} is ${value}; it must be ${expected}.`);
  };
  const isCount = Number.isInteger(maxNewTokens) || maxNewTokens === Number.POSITIVE_INFINITY;
  if (!(isCount && maxNewTokens >= 1)) refuse("maxNewTokens", maxNewTokens, "a whole number of at least 1");
  if (!(temperature >= 0)) refuse("temperature", temperature, "a number of at least 0");
  if (!(Number.isInteger(topK) && topK >= 0)) refuse("topK", topK, "a whole number of at least 0");
  if (!(topP > 0 && topP <= 1)) refuse("topP", topP, "a number above 0 and at most 1");
  if (!(minP >= 0 && minP <= 1)) refuse("minP", minP, "a number from 0 to 1");
  if (!(repetitionPenalty > 0 && repetitionPenalty < Number.POSITIVE_INFINITY)) {
    refuse("repetitionPenalty", repetitionPenalty, "a number above 0");
  }
}
