/**
 * The passes of generation: rows, each a token of some sequence, through all layers with the cache, and what comes of
 * those that have a next token, their logits or that token. Knows rows and slots of the cache; which sequence
 * goes on and how is `generate.ts`.
 */
import { NO_ROW } from "../../../kernels/embedding.ts";
import { SEGMENT } from "../../../kernels/gated-delta-segments.ts";
import { MOST_NORMED_ROWS } from "../../../kernels/matmul-variant.ts";
import { DRAW_WORDS, HIGHEST_TEMPERATURE, likeliestToken, nextRows, nextToken } from "../../../kernels/next-token.ts";
import { LONG_SEQUENCE } from "../../../kernels/rope-table.ts";
import type { Device } from "../../gpu/device.ts";
import { Program } from "../../gpu/program.ts";
import { reshape, rowWindows, sliceRows, type Tensor } from "../../gpu/tensor.ts";
import { Activations } from "../activations.ts";
import { recordLayers } from "../decoder.ts";
import { HeadBuffers, recordHeadRows, recordLogits, recordLogitsInner } from "../head.ts";
import { recordGains } from "../lora-passes.ts";
import type { Model } from "../model.ts";
import type { RowShape } from "../rows.ts";
import { keptRows } from "../states.ts";
import { type CacheSize, GrowingCache } from "./growing-cache.ts";

/** A row to run: one token of a sequence. */
export interface Row {
  readonly token: number;
  readonly position: number;
  readonly slot: number;
  /** Whether its sequence is longer than LongRoPE's original context. */
  readonly isLong: boolean;
}

/** How the token that follows a row is chosen on the device, whose position it is given by. */
export interface TokenDraw {
  /** The likeliest token at 0. */
  readonly temperature: number;
  /** Two words, which no other sequence has. */
  readonly key: readonly [number, number];
}

/** A row whose next token is asked for. */
export interface DrawnRow extends Row {
  readonly draw: TokenDraw;
}

/** A pass that was submitted. */
export interface Submitted {
  /** The token after each of its rows; NO_TOKEN where logits are not finite. */
  readonly tokens: Promise<Uint32Array>;
}

/** Rows of a prefill pass at most; longer prompts take several. */
const PREFILL_ROWS = 1024;

/**
 * Rows that a program is recorded for: one (a matmul has a tile for it), four, and from there on steps of eight, or of
 * a quarter of the power of two below, so that passes stay few and few rows are padding.
 */
export function rowCapacity(rows: number): number {
  if (rows <= 4) return rows <= 1 ? 1 : 4;
  const step = Math.max(8, 2 ** Math.floor(Math.log2(rows)) / 4);
  return Math.ceil(rows / step) * step;
}

/** What is uploaded for each row; the last one where layers have a state. */
type RowInput = "tokens" | "positions" | "ranges" | "windowRanges" | "cacheRows" | "stateRanges";
type PassInput = RowInput | "headRows" | "draws" | "segments";

/** What a program leaves behind: logits, the next tokens, or these and the rows of the next pass. */
type Outcome = "logits" | "tokens" | "next rows";

export class Passes {
  readonly device: Device;
  readonly model: Model;
  /** Rows of a pass at most. */
  readonly mostRows: number;
  /** Rows at most of which logits are computed. */
  readonly #heads: number;
  readonly #cache: GrowingCache;
  readonly #activations: Activations;
  readonly #head: HeadBuffers;
  readonly #inputs: Readonly<Record<PassInput, Tensor>>;
  readonly #logits: readonly Tensor[];
  /** Sums of squares of the rows of a pass, where these are few enough for norms between products. */
  readonly #squares: Tensor;
  readonly #best: Tensor;
  readonly #chosen: Tensor;
  readonly #programs = new Map<string, Program>();
  /** The last pass whose next rows are on the device, and how many of its rows are no padding. */
  #last: { readonly program: Program; readonly rows: number } | undefined;

  /** Throws AdapterError, and leaves nothing behind, when the adapter cannot hold it. */
  constructor(model: Model, size: CacheSize) {
    const { device, config } = model;
    this.device = device;
    this.model = model;
    this.#heads = rowCapacity(size.slots);
    this.mostRows = Math.max(this.#heads, rowCapacity(Math.min(PREFILL_ROWS, size.slots * size.most)));
    const rows = this.mostRows;
    const u32 = (name: string, dimensions: readonly number[]) => device.allocate("batch", name, dimensions, "u32");
    // None where every layer has attention.
    const ofStates = keptRows(config) > 0 ? 1 : 0;
    const made = device.allocating(() => {
      const shape = this.#shape(rows, size.most);
      return {
        activations: new Activations(device, config, [shape], "none", { adapter: model.adapter }),
        head: new HeadBuffers(device, config, [shape], false, { adapter: model.adapter, generates: true }),
        inputs: {
          tokens: u32("tokens", [rows]),
          positions: u32("positions", [rows]),
          ranges: u32("ranges", [rows, 4]),
          windowRanges: u32("windowed ranges", [rows, 4]),
          cacheRows: u32("cache rows", [rows]),
          stateRanges: u32("ranges of states", [ofStates * rows, 4]),
          segments: u32("segments", [ofStates * size.slots, 4]),
          headRows: u32("head rows", [this.#heads]),
          draws: u32("draws", [this.#heads, DRAW_WORDS]),
        },
        cache: new GrowingCache(device, config, size),
        squares: device.allocate("scratch", "sums of squares", [MOST_NORMED_ROWS, Math.ceil(config.hiddenSize / 4)]),
        best: device.allocate("scratch", "largest logits", [this.#heads]),
        chosen: u32("chosen tokens", [this.#heads]),
        logits: this.#headWindows().map((window) =>
          device.allocate("scratch", "logits", [this.#heads, window.shape[0] ?? 0]),
        ),
      };
    });
    this.#activations = made.activations;
    this.#head = made.head;
    this.#inputs = made.inputs;
    this.#cache = made.cache;
    this.#squares = made.squares;
    this.#best = made.best;
    this.#chosen = made.chosen;
    this.#logits = made.logits;
    // A plan is of the largest cache, and of the copy by which it becomes that.
    if (device.counts) this.hold(size.most);
  }

  /** Tokens of each sequence that the cache holds without growing. */
  get cacheLength(): number {
    return this.#cache.length;
  }

  /** Bytes of the cache, now and at most. */
  get cacheBytes(): { readonly now: number; readonly most: number } {
    return this.#cache.bytes;
  }

  /** Reads the adapter as it is now: what passes need of it beside its weights (DoRA's gains). */
  async readAdapter(): Promise<void> {
    const [{ adapter }, { lora }] = [this.model, this.#activations];
    if (!adapter?.norms || !lora) return;
    const program = new Program(this.device, "adapter");
    recordGains(program, adapter, this.model, lora);
    await program.prepare();
    program.run();
    program.dispose();
  }

  /** Makes room in the cache for this many tokens of each sequence. */
  hold(length: number): void {
    if (!this.#cache.grow(length)) return;
    this.#forgetPrograms();
    this.#last = undefined;
  }

  /** The head's matrix, window by window. */
  #headWindows(): Tensor[] {
    const { device, model } = this;
    const windows = rowWindows(model.parameter(model.headName), device.limits.maxStorageBufferBindingSize);
    return windows.map(({ window }) => window);
  }

  #shape(rows: number, longest: number): RowShape {
    return {
      gradientRows: rows,
      branchRows: 0,
      gradientHeadRows: this.#heads,
      branchHeadRows: 0,
      sequences: this.#heads,
      longest,
    };
  }

  /** Runs rows, and gives the logits [V] of each of the rows `heads`, by their place there. */
  async logits(rows: readonly Row[], heads: readonly number[]): Promise<(at: number) => Float32Array> {
    await this.#run(rows, heads, "logits");
    const windows = await Promise.all(
      this.#logits.map((tensor) =>
        this.device.download(reshape(tensor, [Math.max(1, heads.length), tensor.shape[1] ?? 0])),
      ),
    );
    const columnsOf = (index: number) => this.#logits[index]?.shape[1] ?? 0;
    const rowOf = (index: number, at: number) =>
      windows[index]?.subarray(at * columnsOf(index), (at + 1) * columnsOf(index)) ?? new Float32Array();
    if (windows.length === 1) return (at) => rowOf(0, at);
    return (at) => {
      const row = new Float32Array(this.model.config.vocabSize);
      let start = 0;
      for (const index of windows.keys()) {
        row.set(rowOf(index, at), start);
        start += columnsOf(index);
      }
      return row;
    };
  }

  /** Runs rows, and gives the token after each of the rows `heads`, by their place there and what they draw by. */
  async tokens(rows: readonly Row[], heads: readonly number[], draws: readonly TokenDraw[]): Promise<Uint32Array> {
    await this.#run(rows, heads, "tokens", draws);
    return await this.#chosenTokens(heads.length);
  }

  /** Submits rows of sequences that all go on, and prepares `next`. */
  async start(rows: readonly DrawnRow[]): Promise<Submitted> {
    const draws = rows.map(({ draw }) => draw);
    const program = await this.#run(rows, [...rows.keys()], "next rows", draws);
    this.#last = { program, rows: rows.length };
    return { tokens: this.#chosenTokens(rows.length) };
  }

  /**
   * Submits the pass after the one that was submitted last, about the tokens that come of that: it takes them on the
   * device, so that nobody waits for the host to hear of them. The cache must have room for it.
   */
  next(): Submitted {
    if (this.#last === undefined) throw new Error("no pass goes before the next one");
    this.#last.program.run();
    return { tokens: this.#chosenTokens(this.#last.rows) };
  }

  #chosenTokens(count: number): Promise<Uint32Array> {
    const read = this.device.downloadBytes(reshape(this.#chosen, [count])).then((bytes) => new Uint32Array(bytes));
    read.catch(() => undefined); // one that was submitted ahead may never be waited for
    return read;
  }

  /** Uploads and submits one pass. */
  async #run(
    rows: readonly Row[],
    heads: readonly number[],
    outcome: Outcome,
    draws: readonly TokenDraw[] = [],
  ): Promise<Program> {
    const capacity = rowCapacity(rows.length);
    const { slidingWindow: window = Number.POSITIVE_INFINITY } = this.model.config;
    const tokens = new Uint32Array(capacity);
    const positions = new Uint32Array(capacity);
    const ranges = new Uint32Array(4 * capacity);
    const windowRanges = new Uint32Array(4 * capacity);
    const cacheRows = new Uint32Array(capacity).fill(NO_ROW);
    const { stateRanges, segments } = this.#ofStates(rows, capacity);
    rows.forEach(({ token, position, slot, isLong }, row) => {
      tokens[row] = token;
      positions[row] = isLong ? position | LONG_SEQUENCE : position;
      const own = slot * this.#cache.length + position;
      cacheRows[row] = own;
      ranges.set([0, 0, own - position, own + 1], 4 * row);
      windowRanges.set([0, 0, own - Math.min(position, window - 1), own + 1], 4 * row);
    });
    const headRows = new Uint32Array(this.#heads).fill(NO_ROW);
    headRows.set(heads);
    const positionsNext = heads.map((row) => (rows[row]?.position ?? 0) + 1);
    const greedy = draws.every(({ temperature }) => temperature === 0);
    const program = await this.#program(capacity, outcome, greedy);
    const drawn = drawWords(draws, positionsNext, this.#heads);
    const ofRows = { tokens, positions, ranges, windowRanges, cacheRows, stateRanges };
    const arrays = { ...ofRows, headRows, draws: drawn, segments };
    for (const [name, array] of Object.entries(arrays)) {
      this.device.upload(this.#inputs[name as keyof typeof arrays], array);
    }
    program.run();
    return program;
  }

  /**
   * Where rows find what goes before the first row of their sequence in the pass, and which rows are a sequence's: these
   * follow one another.
   */
  #ofStates(rows: readonly Row[], capacity: number) {
    const kept = keptRows(this.model.config);
    const [slots = 0] = this.#inputs.segments.shape;
    const stateRanges = new Uint32Array(kept > 0 ? 4 * capacity : 0);
    const segments = new Uint32Array(4 * slots);
    if (kept === 0) return { stateRanges, segments };
    // Padding sees itself alone.
    for (let row = 0; row < capacity; row++) stateRanges.set([0, 0, row, row + 1], 4 * row);
    rows.forEach(({ slot }, row) => {
      const before = rows[row - 1]?.slot === slot;
      const first = before ? (segments[4 * slot] ?? 0) : row;
      stateRanges.set([0, (slot + 1) * kept, first, row + 1], 4 * row);
      segments.set([first, row + 1, slot, SEGMENT.KEEPS | SEGMENT.CONTINUES], 4 * slot);
    });
    return { stateRanges, segments };
  }

  /** The program for a number of rows; heads are those of the first `min(#heads, rows)` head rows. */
  async #program(rows: number, outcome: Outcome, greedy: boolean): Promise<Program> {
    const key = `${rows} ${outcome}${greedy ? " greedy" : ""}`;
    let program = this.#programs.get(key);
    if (program === undefined) {
      program = this.#record(rows, outcome, greedy);
      this.#programs.set(key, program);
    }
    await program.prepare();
    return program;
  }

  #record(rows: number, outcome: Outcome, greedy: boolean): Program {
    const { device, model } = this;
    const program = new Program(device, `generate ${rows}`);
    const of = (name: RowInput) => sliceRows(this.#inputs[name], 0, rows);
    const positionLimit = this.#cache.length;
    const inputs = {
      ...{ tokens: of("tokens"), positions: of("positions"), positionLimit },
      ...{ ranges: of("ranges"), windowRanges: of("windowRanges") },
    };
    const { keys, values, states } = this.#cache;
    const hasStates = keptRows(model.config) > 0;
    const cache = {
      ...{ keys, values, rows: of("cacheRows"), states, segments: this.#inputs.segments, squares: this.#squares },
      stateRanges: hasStates ? of("stateRanges") : this.#inputs.stateRanges,
    };
    const shape = this.#shape(rows, this.#cache.length);
    const output = recordLayers(program, model, this.#activations, shape, inputs, { cache });
    const heads = Math.min(this.#heads, rows);
    const headRows = sliceRows(this.#inputs.headRows, 0, heads);
    const pass = { program, model, buffers: this.#head };
    const normed = recordHeadRows(pass, output, headRows);
    const inner = recordLogitsInner(pass, normed);
    const chosen = reshape(this.#chosen, [heads]);
    const draws = sliceRows(this.#inputs.draws, 0, heads);
    let first = 0;
    for (const [index, window] of this.#headWindows().entries()) {
      const [columns = 0] = window.shape;
      const logits = reshape(this.#logits[index] ?? device.unused, [heads, columns]);
      recordLogits(pass, { normed, inner, logits }, { start: first, window });
      if (outcome !== "logits") {
        const best = reshape(this.#best, [heads]);
        program.dispatch(greedy ? likeliestToken : nextToken, {
          logits,
          draws,
          best,
          tokens: chosen,
          firstToken: first,
        });
      }
      first += columns;
    }
    if (outcome === "next rows") {
      const { slidingWindow: window = model.config.contextLength } = model.config;
      program.dispatch(nextRows, {
        ...{ chosen, tokens: of("tokens"), positions: of("positions"), ranges: of("ranges") },
        ...{ windowRanges: of("windowRanges"), cacheRows: of("cacheRows"), draws, window },
      });
    }
    return program;
  }

  #forgetPrograms(): void {
    for (const program of this.#programs.values()) program.dispose();
    this.#programs.clear();
  }

  /** Gives the device memory back. */
  free(): void {
    this.#forgetPrograms();
    this.#activations.free();
    this.#head.free();
    this.#cache.free();
    const rest = [...Object.values(this.#inputs), ...this.#logits, this.#squares, this.#best, this.#chosen];
    for (const tensor of rest) this.device.free(tensor);
  }
}

/** The rows of `draws` on the device: [heads, DRAW_WORDS]; rows without a draw take the likeliest token. */
function drawWords(draws: readonly TokenDraw[], positions: readonly number[], heads: number): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(heads * DRAW_WORDS);
  const numbers = new Float32Array(words.buffer);
  draws.forEach(({ key, temperature }, row) => {
    words.set([...key, positions[row] ?? 0], row * DRAW_WORDS);
    numbers[row * DRAW_WORDS + 3] = Math.min(temperature, HIGHEST_TEMPERATURE);
  });
  return words;
}
