/**
 * A tile of attention on subgroup matrices (tensor cores, simdgroup matrices): the two products of `attention-tile.ts`
 * for heads of 64 and 128 channels, by one subgroup or two by two. Operands go through workgroup memory a tile of
 * columns at a time, scaled and rounded or split as `matrix-operands.ts` says, and results back through it to the lanes
 * that own them: a row belongs to neighbouring lanes, which own its columns and, of its sums, its channels. So the sums
 * over columns lie in registers as f32, and the softmax may change them between two tiles. Text only.
 */
import { AttentionTile, type TileOperands, type TileShape, unknown } from "./attention-tile.ts";
import type { ActivationFormat } from "./kernel.ts";
import { MATRIX_LANES, type ProductFormat } from "./matmul-variant.ts";
import {
  fillLines,
  matrixTypes,
  multiply,
  type OperandStaging,
  type StagedOperand,
  scaleMemory,
  scaleStart,
  stageAll,
  stagedArrays,
  stridedWidth,
  sumMatrices,
  unscaled,
  zeroMatrices,
} from "./matrix-operands.ts";
import type { AdapterFacts } from "./wgsl.ts";
import { range } from "./wgsl.ts";

/** Head sizes that have tiles on matrices: as large models have, and whole numbers of every tile's columns. */
const MATRIX_HEADS = [64, 128];

/** The largest head whose sums, of two results in dK and dV, fit the registers of a tile with twice the rows. */
const MANY_ROWS_HEAD = 64;

/** A tile on matrices. */
export interface MatrixTileShape extends TileShape {
  readonly team: "matrices";
  readonly matrices: NonNullable<TileShape["matrices"]>;
  /** What f32 operands may be rounded to. */
  readonly products: ProductFormat;
}

/**
 * The tiles on matrices for heads of this size; none where the adapter or the head has none. A software adapter's
 * matrices are loops over their elements, for tests.
 */
export function matrixTileShapes(headSize: number, facts: AdapterFacts, products: ProductFormat): MatrixTileShape[] {
  const { matrices, subgroupSize: lanes, software } = facts;
  if (matrices === undefined || !MATRIX_HEADS.includes(headSize) || !MATRIX_LANES.includes(lanes)) return [];
  const shape = (rows: number, width: number, inRow: 1 | 2): MatrixTileShape => ({
    ...{ headSize, team: "matrices", lanes, software, rows, columns: 4, products },
    matrices: { ...matrices, width, inRow },
  });
  if (software) return [shape(16, 16, 1)];
  return headSize <= MANY_ROWS_HEAD ? [shape(32, 32, 2), shape(64, 32, 2)] : [shape(32, 32, 2)];
}

const capital = (name: string) => `${name.charAt(0).toUpperCase()}${name.slice(1)}`;

/** WGSL of a tile on matrices. */
export class MatrixAttentionTile extends AttentionTile {
  readonly #matrices: MatrixTileShape["matrices"];
  readonly #products: ProductFormat;
  readonly #software: boolean;
  readonly #tileRows: number;
  readonly #group: number;
  readonly #staging: OperandStaging;
  readonly #scales: readonly string[];
  /** Numbers from one line to the next: of operands, and of results. */
  readonly #stride: number;
  readonly #resultStride: number;

  constructor(shape: MatrixTileShape, operands: TileOperands) {
    super(shape, operands);
    const { matrices, products, software, rows, lanes } = shape;
    this.#matrices = matrices;
    this.#products = products;
    this.#software = software;
    this.#tileRows = rows;
    this.#group = matrices.inRow ** 2 * lanes;
    this.#scales = operands.factors.map(capital);
    const halves = matrices.component === "f16";
    this.#staging = { halves, rounds: (count) => (software ? unknown(count) : `${count}u`) };
    this.#stride = stridedWidth(this.width, halves);
    this.#resultStride = this.width + 4;
  }

  /** An f32 is multiplied in two parts of f16, unless it may be rounded. */
  #parts(format: ActivationFormat): 1 | 2 {
    return this.#staging.halves && this.#products === "f32" && format === "f32" ? 2 : 1;
  }

  override declarations(stores: readonly [string, ActivationFormat]): string {
    const { halves } = this.#staging;
    const [rows, width, parts] = [this.#tileRows, this.width, this.#parts("f32")];
    return /* wgsl */ `${super.declarations(stores)}${matrixTypes(this.#matrices)}
${stagedArrays("A", parts, rows * this.#stride, halves)}
${stagedArrays("B", parts, width * this.#stride, halves)}
var<workgroup> results: array<f32, ${rows * this.#resultStride}>;
var<workgroup> rowStarts: array<u32, ${rows}>;
var<workgroup> columnStarts: array<u32, ${width}>;
${halves ? scaleMemory(this.#scales) : ""}`;
  }

  override held(...given: Parameters<AttentionTile["held"]>): string {
    const { lanes } = this.shape;
    const { inRow } = this.#matrices;
    return /* wgsl */ `${super.held(...given)}
  let invocation = lane;
  let ownLane = lane % ${lanes}u;
  let partRow = lane / ${lanes}u / ${inRow}u * ${this.#tileRows / inRow}u;
  let partColumn = lane / ${lanes}u % ${inRow}u * ${this.width / inRow}u;
  ${this.#staging.halves ? scaleStart(this.#scales) : ""}`;
  }

  override scores(into: string, a: string, start: string, b: string, starts: string): string {
    const left = this.#operand({ name: start, of: start, array: "A", binding: a, alongK: true }, this.#tileRows);
    const right = this.#operand({ name: starts, of: starts, array: "B", binding: b, alongK: true }, this.width);
    const size = this.rows.length;
    return /* wgsl */ `
  ${this.rows.map((r) => `var ${into}${r}: X;`).join(" ")}
  {
    workgroupBarrier();
    if (${this.team.storing}) { ${this.rows.map((r) => `rowStarts[${this.team.place(`${r}u`)}] = ${start}${r};`).join(" ")} }
    ${this.#columnStarts(starts)}
    ${zeroMatrices(this.#sums)}
    for (var channel = 0u; channel < ${this.#loop(this.shape.headSize)}; channel += ${this.width}u) {
      workgroupBarrier();
      ${stageAll([left, right], this.#sums, this.#staging, "u.H")}
      ${this.#multiply(left, right)}
    }
    ${this.#handOut}
    var own: array<X, ${size}>;
    ${this.#eachRow((r) => `own[${r}] = ${this.#result(r, left, right)};`)}
    ${this.rows.map((r) => `${into}${r} = own[${r}];`).join(" ")}
  }`;
  }

  override zeros(sum: string): string {
    return `var ${sum}: array<vec4f, ${this.chunks.length * this.rows.length}>;`;
  }

  override scaled(sum: string, r: number, factor: string): string {
    return this.#eachChunk((chunk) => `${sum}[${this.#sum(chunk, `${r}u`)}] *= ${factor};`);
  }

  override accumulate(sum: string, x: string, b: string, starts: string): string {
    const size = this.rows.length;
    const fill: StagedOperand["fill"] = (put) => /* wgsl */ `{
      var own = array<X, ${size}>(${this.rows.map((r) => `${x}${r}`).join(", ")});
      ${this.#eachRow((r) => `{ ${put(`own[${r}]`, `(${this.team.place(r)}) * ${this.#stride}u + ${this.team.columnLane} * 4u`)} }`)}
    }`;
    const left: StagedOperand = {
      ...{ name: x, scale: capital(x), array: "A", alongK: true, stride: this.#stride, fill },
      parts: this.#parts("f32"),
    };
    const across = { name: `${starts}Across`, of: starts, array: "B", binding: b, alongK: false } as const;
    const right = this.#operand(across, this.width);
    return /* wgsl */ `{
    workgroupBarrier();
    ${this.#columnStarts(starts)}
    ${stageAll([left], [], this.#staging, "u.H")}
    ${this.#eachChunk(
      (chunk) => /* wgsl */ `{
      let channel = ${chunk} * ${this.width}u;
      ${stageAll([right], [], this.#staging, "u.H")}
      ${zeroMatrices(this.#sums)}
      ${this.#multiply(left, right)}
      ${this.#handOut}
      ${this.#eachRow((r) => `${sum}[${this.#sum(chunk, r)}] += ${this.#result(r, left, right)};`)}
    }`,
    )}
  }`;
  }

  override store(sum: string, start: string, value: (r: number, sum: string) => string): string {
    return this.#eachChunk((chunk) =>
      this.rows
        .map((r) => {
          const channel = `${chunk} * ${this.width}u + ${this.team.columnLane} * 4u`;
          return `store(${this.team.of(start, r)}, ${channel}, ${value(r, `${sum}[${this.#sum(chunk, `${r}u`)}]`)});`;
        })
        .join("\n    "),
    );
  }

  /** Rows or columns of a binding, as many channels of each as the tile has columns, from `channel` on. */
  #operand(
    given: { name: string; of: string; array: "A" | "B"; binding: string; alongK: boolean },
    lines: number,
  ): StagedOperand {
    const { name, of, array, binding, alongK } = given;
    const starts = array === "A" ? "rowStarts" : "columnStarts";
    const size = { lines, width: this.width, stride: this.#stride, group: this.#group };
    const read = { text: "", four: `${binding}Four(${starts}[line], channel + at)` };
    return {
      ...{ name, scale: capital(of), array, alongK, stride: this.#stride },
      parts: this.#parts(this.loads[binding] ?? "f32"),
      fill: fillLines(size, this.#staging.rounds, read),
    };
  }

  /** Where the tile's columns start, for `#operand`. A barrier has to follow. */
  #columnStarts(starts: string): string {
    const { columns } = this.shape;
    const places = range(columns).map((c) => `columnStarts[lane * ${columns}u + ${c}u] = ${starts}${c};`);
    return `if (lane < ${this.width / columns}u) { ${places.join(" ")} }`;
  }

  get #down(): number {
    return this.#tileRows / this.#matrices.inRow / this.#matrices.M;
  }

  get #across(): number {
    return this.width / this.#matrices.inRow / this.#matrices.N;
  }

  get #sums(): readonly string[] {
    return sumMatrices(this.#down, this.#across);
  }

  /** Adds the products of what is staged. */
  #multiply(left: StagedOperand, right: StagedOperand): string {
    const { K } = this.#matrices;
    return /* wgsl */ `for (var i = 0u; i < ${this.#staging.rounds(this.width / K)}; i++) {
        let step = i * ${K}u;
        ${multiply(left, right, this.#matrices, this.#down, this.#across)}
      }`;
  }

  /** The sums in workgroup memory, for all lanes. */
  get #handOut(): string {
    const { M, N } = this.#matrices;
    const stride = this.#resultStride;
    const stores = range(this.#down).flatMap((m) =>
      range(this.#across).map((n) => {
        const at = `(partRow + ${m * M}u) * ${stride}u + partColumn + ${n * N}u`;
        return `subgroupMatrixStore<row_major>(&results, ${at}, matrix${m}_${n}, ${stride}u);`;
      }),
    );
    return `${stores.join("\n      ")}\n      workgroupBarrier();`;
  }

  /** The four results that a lane owns of its row r. */
  #result(r: string, left: StagedOperand, right: StagedOperand): string {
    const at = `(${this.team.place(r)}) * ${this.#resultStride}u + ${this.team.columnLane} * 4u`;
    const four = range(4).map((i) => `results[${at} + ${i}u]`);
    return `vec4f(${four.join(", ")})${this.#staging.halves ? ` * ${unscaled(left, right)}` : ""}`;
  }

  #sum(chunk: string, r: string): string {
    return `${chunk} * ${this.rows.length}u + ${r}`;
  }

  #loop(count: number): string {
    return this.#staging.rounds(count);
  }

  /** Text for each of the lane's rows: a loop where registers are memory, and a driver's compiler is slow. */
  #eachRow(text: (r: string) => string): string {
    return this.#unrolled("row", this.rows.length, text);
  }

  #eachChunk(text: (chunk: string) => string): string {
    return this.#unrolled("chunk", this.chunks.length, text);
  }

  #unrolled(name: string, count: number, text: (i: string) => string): string {
    if (!this.#software) {
      return range(count)
        .map((i) => text(`${i}u`))
        .join("\n    ");
    }
    return `for (var ${name} = 0u; ${name} < ${this.#loop(count)}; ${name}++) { ${text(name)} }`;
  }
}
