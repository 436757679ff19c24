/**
 * Generation with a key/value cache: a prefill pass over all prompts, then one row a sequence and token. Sequences that
 * have ended leave the pass. Each sequence draws from a generator of its own, so its tokens do not depend on which
 * others are generated beside it.
 */
import { AdapterError, ConfigError, counted, NumericError } from "../../../errors.ts";
import { NO_ROW } from "../../../kernels/embedding.ts";
import type { Device } from "../../gpu/device.ts";
import { Program } from "../../gpu/program.ts";
import { reshape, rowWindows, sliceRows, type Tensor } from "../../gpu/tensor.ts";
import { OneAtATime } from "../../one-at-a-time.ts";
import { Random } from "../../random.ts";
import { Activations } from "../activations.ts";
import type { KeyValueCache } from "../block.ts";
import { recordLayers } from "../decoder.ts";
import { HeadBuffers, recordHeadRows } from "../head.ts";
import { recordMatmul } from "../matmul.ts";
import type { Model } from "../model.ts";
import type { RowShape } from "../rows.ts";
import { type SamplingOptions, sampleToken } from "./sample.ts";

export interface GenerateOptions extends SamplingOptions {
  readonly maxNewTokens: number;
  readonly seed: number;
  /** Ends a sequence; not part of what is returned. Default: the model's. */
  readonly eosTokenIds?: readonly number[];
  /**
   * Called for every new token, with the prompt's place and the continuation so far, whose last id is the new one.
   * "stop" ends the sequence after it. Sequences generated side by side take turns; end tokens are not passed on.
   */
  readonly onToken?: (promptIndex: number, ids: readonly number[]) => "stop" | undefined;
  /**
   * With a single prompt: reuse the keys and values of its first tokens that the cache still holds from the call
   * before, as the turns of a conversation do. The model's weights must not have changed. Matmuls may then add in
   * another order, so that logits can differ in their last bits. Default false.
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
}

/** Rows of a prefill pass; longer prompts take several. */
const PREFILL_ROWS = 1024;
const COUNT_STEP = 8;

interface Sequence {
  readonly index: number;
  readonly slot: number;
  readonly random: Random;
  readonly prompt: ArrayLike<number>;
  readonly ids: number[];
  /** Tokens in the cache. */
  length: number;
  next: number;
}

/** A row to run: one token of a sequence. */
interface Row {
  readonly token: number;
  readonly position: number;
  readonly slot: number;
}

/**
 * Continues prompts with one model, with memory for a fixed number of sequences and tokens. Throws ConfigError for
 * sizes and options out of range, AdapterError when the memory does not fit; `free` gives it back.
 */
export class Generator {
  readonly device: Device;
  readonly model: Model;
  /** Sequences side by side. */
  readonly #slots: number;
  /** `batch` rounded up to a number of rows that programs are recorded for. */
  readonly #batch: number;
  readonly #maxLength: number;
  readonly #activations: Activations;
  readonly #head: HeadBuffers;
  readonly #cache: KeyValueCache;
  readonly #inputs: Record<"tokens" | "positions" | "ranges" | "windowRanges" | "cacheRows" | "headRows", Tensor>;
  readonly #logits: Tensor[];
  readonly #programs = new Map<string, Program>();
  /** The tokens whose keys and values the first slot of the cache holds. */
  #cached: number[] = [];
  /** Two calls would write into one cache. */
  readonly #calls = new OneAtATime();

  /**
   * Allocates the cache and scratch for this many sequences. Throws ConfigError if maxLength exceeds the context or
   * either is no whole number of at least 1, AdapterError if the adapter cannot hold it.
   */
  constructor(model: Model, { maxBatch = 64, maxLength }: GeneratorOptions) {
    const { device, config } = model;
    if (!Number.isInteger(maxBatch) || maxBatch < 1) {
      throw new ConfigError(`maxBatch is ${maxBatch}; it must be a whole number of at least 1.`);
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
      throw new AdapterError(
        `The keys of ${counted(maxBatch, "sequence")} of ${maxLength} tokens do not fit one binding of the adapter "${device.description}"; ${most === 0 ? "take shorter sequences (max_length, max_new_tokens)" : `take ${most} or fewer, or shorter ones`}.`,
      );
    }
    this.#slots = maxBatch;
    this.#batch = Math.ceil(maxBatch / COUNT_STEP) * COUNT_STEP;
    this.#maxLength = maxLength;
    const rows = Math.max(this.#batch, PREFILL_ROWS);
    const shape = this.#shape(rows);
    const kvWidth = config.keyValueHeads * config.headSize;
    const cacheOf = (what: string) =>
      Array.from({ length: config.layers }, (_, layer) =>
        device.allocate("activations", `${what} cache ${layer}`, [this.#slots * maxLength, kvWidth]),
      );
    const u32 = (name: string, dimensions: readonly number[]) => device.allocate("batch", name, dimensions, "u32");
    const made = device.allocating(() => ({
      activations: new Activations(device, config, [shape], "none", { adapter: model.adapter }),
      head: new HeadBuffers(device, config, [shape], false),
      inputs: {
        tokens: u32("tokens", [rows]),
        positions: u32("positions", [rows]),
        ranges: u32("ranges", [rows, 4]),
        windowRanges: u32("windowed ranges", [rows, 4]),
        cacheRows: u32("cache rows", [rows]),
        headRows: u32("head rows", [this.#batch]),
      },
      keys: cacheOf("key"),
      values: cacheOf("value"),
      logits: rowWindows(model.parameter(model.headName), device.limits.maxStorageBufferBindingSize).map(({ window }) =>
        device.allocate("scratch", "logits", [this.#batch, window.shape[0] ?? 0]),
      ),
    }));
    this.#activations = made.activations;
    this.#head = made.head;
    this.#inputs = made.inputs;
    this.#cache = { keys: made.keys, values: made.values, rows: made.inputs.cacheRows };
    this.#logits = made.logits;
  }

  /** How many sequences of this many tokens fit one binding of the adapter with the keys, or values, of one layer. */
  static mostSideBySide({ device, config }: Model, maxLength: number): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
    const bytes = 4 * maxLength * config.keyValueHeads * config.headSize;
    return Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize) / bytes);
  }

  #shape(rows: number): RowShape {
    return {
      gradientRows: rows,
      branchRows: 0,
      gradientHeadRows: this.#batch,
      branchHeadRows: 0,
      sequences: this.#batch,
      longest: this.#maxLength,
    };
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
      this.#checkPrompt(prompt, index + 1);
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
      const random = new Random(options.seed, first + slot);
      return { index: slot, slot, random, prompt, ids: [], length: prompt.length, next: 0 };
    });
    const results: GeneratedSequence[] = sequences.map(({ ids }) => ({ ids, finish: "length" }));
    const reused = options.reusePrefix && prompts.length === 1 ? commonLength(this.#cached, prompts[0] ?? []) : 0;
    this.#cached = []; // until the passes have been made
    let logits = await this.#prefill(prompts, reused);
    let active = sequences;
    while (active.length > 0) {
      active.forEach((sequence, at) => {
        const row = logits(at);
        if (!row.every(Number.isFinite)) {
          throw new NumericError(
            `Prompt ${first + sequence.slot + 1}: the logits after ${sequence.length} tokens are not finite numbers; the weights of ${this.model.folder} overflow f32.`,
          );
        }
        sequence.next = sampleToken(row, options, sequence.random, tokensOf(sequence));
      });
      active = active.filter((sequence) => {
        if (eos.has(sequence.next)) {
          results[sequence.index] = { ids: sequence.ids, finish: "eos" };
          return false;
        }
        sequence.ids.push(sequence.next);
        if (options.onToken?.(first + sequence.index, sequence.ids) === "stop") {
          results[sequence.index] = { ids: sequence.ids, finish: "stop" };
          return false;
        }
        // The new token is not in the cache yet.
        return sequence.ids.length < options.maxNewTokens && sequence.length + 1 < this.#maxLength;
      });
      if (active.length === 0) break;
      const rows = active.map(({ next, length, slot }): Row => ({ token: next, position: length, slot }));
      for (const sequence of active) sequence.length++;
      logits = await this.#run(
        rows,
        rows.map((_, row) => row),
      );
    }
    const [single] = sequences;
    if (single) this.#cached = [...tokensOf(single)].slice(0, single.length);
    return results;
  }

  /** Runs all prompt tokens but the first `reused`; returns the logits of each prompt's last one. */
  async #prefill(prompts: readonly ArrayLike<number>[], reused: number): Promise<(sequence: number) => Float32Array> {
    const { vocabSize } = this.model.config;
    const all = new Float32Array(prompts.length * vocabSize);
    let rows: Row[] = [];
    let lasts: { row: number; sequence: number }[] = [];
    const flush = async () => {
      const logits = await this.#run(
        rows,
        lasts.map(({ row }) => row),
      );
      lasts.forEach(({ sequence }, at) => {
        all.set(logits(at), sequence * vocabSize);
      });
      rows = [];
      lasts = [];
    };
    for (const [slot, prompt] of prompts.entries()) {
      for (let position = reused; position < prompt.length; position++) {
        if (rows.length === Math.max(this.#batch, PREFILL_ROWS)) await flush();
        rows.push({ token: prompt[position] ?? 0, position, slot });
      }
      lasts.push({ row: rows.length - 1, sequence: slot });
    }
    await flush();
    return (sequence) => all.subarray(sequence * vocabSize, (sequence + 1) * vocabSize);
  }

  /** One pass over rows; logits of the rows in `heads`, by their place there. */
  async #run(rows: readonly Row[], heads: readonly number[]): Promise<(at: number) => Float32Array> {
    const capacity =
      rows.length <= this.#batch
        ? Math.ceil(rows.length / COUNT_STEP) * COUNT_STEP
        : Math.max(this.#batch, PREFILL_ROWS);
    const tokens = new Uint32Array(capacity);
    const positions = new Uint32Array(capacity);
    const ranges = new Uint32Array(4 * capacity);
    const windowRanges = new Uint32Array(4 * capacity);
    const cacheRows = new Uint32Array(capacity).fill(NO_ROW);
    const window = this.model.config.slidingWindow ?? this.#maxLength;
    rows.forEach(({ token, position, slot }, row) => {
      tokens[row] = token;
      positions[row] = position;
      const own = slot * this.#maxLength + position;
      cacheRows[row] = own;
      ranges.set([0, 0, own - position, own + 1], 4 * row);
      windowRanges.set([0, 0, own - Math.min(position, window - 1), own + 1], 4 * row);
    });
    const headRows = new Uint32Array(this.#batch).fill(NO_ROW);
    headRows.set(heads);
    const program = await this.#program(capacity);
    this.device.upload(this.#inputs.tokens, tokens);
    this.device.upload(this.#inputs.positions, positions);
    this.device.upload(this.#inputs.ranges, ranges);
    this.device.upload(this.#inputs.windowRanges, windowRanges);
    this.device.upload(this.#inputs.cacheRows, cacheRows);
    this.device.upload(this.#inputs.headRows, headRows);
    program.run();
    const headCapacity = Math.min(this.#batch, capacity);
    const windows = await Promise.all(
      this.#logits.map((tensor) => this.device.download(sliceRows(tensor, 0, headCapacity))),
    );
    const [whole] = windows;
    const { vocabSize } = this.model.config;
    if (windows.length === 1 && whole) return (at) => whole.subarray(at * vocabSize, (at + 1) * vocabSize);
    return (at) => {
      const row = new Float32Array(vocabSize);
      let start = 0;
      windows.forEach((window, index) => {
        const columns = this.#logits[index]?.shape[1] ?? 0;
        row.set(window.subarray(at * columns, (at + 1) * columns), start);
        start += columns;
      });
      return row;
    };
  }

  /** The program for a number of rows; of the logits it computes those of the first `min(batch, rows)` head rows. */
  async #program(rows: number): Promise<Program> {
    const key = String(rows);
    let program = this.#programs.get(key);
    if (program === undefined) {
      program = new Program(this.device, `generate ${rows}`);
      const heads = Math.min(this.#batch, rows);
      const inputs = {
        tokens: sliceRows(this.#inputs.tokens, 0, rows),
        positions: sliceRows(this.#inputs.positions, 0, rows),
        positionLimit: this.#maxLength,
        ranges: sliceRows(this.#inputs.ranges, 0, rows),
        windowRanges: sliceRows(this.#inputs.windowRanges, 0, rows),
      };
      const cache = { ...this.#cache, rows: sliceRows(this.#cache.rows, 0, rows) };
      const output = recordLayers(program, this.model, this.#activations, this.#shape(rows), inputs, cache);
      const headRows = sliceRows(this.#inputs.headRows, 0, heads);
      const normed = recordHeadRows({ program, model: this.model, buffers: this.#head }, output, headRows);
      const table = this.model.parameter(this.model.headName);
      let start = 0;
      for (const logits of this.#logits) {
        const columns = logits.shape[1] ?? 0;
        recordMatmul(program, "NT", normed, sliceRows(table, start, columns), reshape(logits, [heads, columns]));
        start += columns;
      }
      this.#programs.set(key, program);
    }
    await program.prepare();
    return program;
  }

  /** Gives the device memory back. */
  free(): void {
    for (const program of this.#programs.values()) program.dispose();
    this.#activations.free();
    this.#head.free();
    for (const tensor of [
      ...this.#cache.keys,
      ...this.#cache.values,
      ...Object.values(this.#inputs),
      ...this.#logits,
    ]) {
      this.device.free(tensor);
    }
  }
}

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
