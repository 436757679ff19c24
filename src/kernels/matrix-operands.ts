/**
 * Operands of subgroup matrices in workgroup memory, which the products of `matmul-matrix-tile.ts` and of
 * `attention-matrix.ts` share: how numbers get there as the matrices' type, and what is multiplied there. Where
 * matrices take f16, each operand is scaled by a power of two that follows the largest number so far, and an f32 is
 * either rounded to f16 or split into two parts of f16,
 *
 *   x = high + low,  high = f16(x),  low = f16(x - high)        a b = low high + high low + high high
 *
 * which leaves out low low: about 2^-22 of each term, as f32's own rounding. Numbers below 2^-16 of the operand's
 * largest lose digits one by one: no number is off by more than 2^-38 of it. What is not finite stays so and scales
 * nothing.
 */
import type { MatrixFacts } from "./wgsl.ts";
import { range, unknownCount } from "./wgsl.ts";

/**
 * Where the largest number of an operand is put: 2^13 to 2^14 at first, so that larger ones to come rarely exceed f16,
 * whose end is 65504, and low parts of numbers 2^-16 of it are no subnormals.
 */
const TARGET_EXPONENT = 13;
const LARGEST_HALF = "65000.0";
const LARGEST_FINITE = "3.4e38";

/** An operand in workgroup memory: lines as they are stored, along k or across. */
export interface StagedOperand {
  /** In the WGSL, of its matrices. */
  readonly name: string;
  /** In the WGSL, of its scale, which operands of several products may share. */
  readonly scale: string;
  /** Its arrays are `high${array}` and, in two parts, `low${array}`. */
  readonly array: string;
  readonly parts: 1 | 2;
  /** Its stored rows run along k. */
  readonly alongK: boolean;
  /** Numbers from one line to the next: apart by a few more, so that lines start in different banks. */
  readonly stride: number;
  /**
   * WGSL that does `put(four, place)` for each four numbers of an invocation's share: a vec4f and its place in the
   * arrays.
   */
  readonly fill: (put: (four: string, place: string) => string) => string;
}

/** What the texts of a kernel have in common. */
export interface OperandStaging {
  /** Matrices take f16. */
  readonly halves: boolean;
  /** WGSL: a count as a loop's bound. */
  readonly rounds: (count: number) => string;
}

const PARTS = ["high", "low"] as const;

/** Numbers that a line of so many takes. */
export const stridedWidth = (width: number, halves: boolean) => width + (halves ? 8 : 4);

/** The declaration of an operand's arrays: lines of `stride` numbers. */
export function stagedArrays(array: string, parts: 1 | 2, numbers: number, halves: boolean): string {
  return range(parts)
    .map((part) => `var<workgroup> ${PARTS[part]}${array}: array<${halves ? "f16" : "f32"}, ${numbers}>;`)
    .join("\n");
}

/**
 * Workgroup memory for scales of these names: the largest numbers that did not fit, and how many invocations had such.
 */
export function scaleMemory(scales: readonly string[]): string {
  const largest = scales.map((scale) => `var<workgroup> largest${scale}: atomic<u32>;`);
  return [...largest, "var<workgroup> misfits: atomic<u32>;"].join("\n");
}

/** The scales at their start, where nothing fits yet but zeros. A barrier has to follow. */
export function scaleStart(scales: readonly string[]): string {
  return /* wgsl */ `${scales.map((scale) => `var scale${scale} = 1.0;\n  var limit${scale} = 0.0; // the largest number that fits`).join("\n  ")}
  var misfitsBefore = 0u;
  if (invocation == 0u) {
    ${scales.map((scale) => `atomicStore(&largest${scale}, 0u);`).join("\n    ")}
    atomicStore(&misfits, 0u);
  }`;
}

/** WGSL: what the sums of two operands are multiplied by. */
export const unscaled = (a: StagedOperand, b: StagedOperand) => `(1.0 / scale${a.scale}) * (1.0 / scale${b.scale})`;

/**
 * Lines of `width` numbers as an operand's `fill`: `read(line, at)` is a vec4f in terms of the WGSL `line` and `at`.
 */
export function fillLines(
  { lines, width, stride, group }: { lines: number; width: number; stride: number; group: number },
  rounds: (count: number) => string,
  read: { readonly text: string; readonly four: string },
): StagedOperand["fill"] {
  const quads = (lines * width) / 4;
  return (put) => {
    const body = /* wgsl */ `let line = four / ${width / 4}u;
      let at = four % ${width / 4}u * 4u;
      ${read.text}
      ${put(read.four, `line * ${stride}u + at`)}`;
    if (quads < group) return `if (invocation < ${quads}u) { let four = invocation;\n      ${body}\n    }`;
    return `for (var i = 0u; i < ${rounds(quads / group)}; i++) { let four = i * ${group}u + invocation;\n      ${body}\n    }`;
  };
}

/** Writes an operand's numbers; `most` of its scale becomes the invocation's largest. */
function stage({ array, parts, scale, fill }: StagedOperand, halves: boolean): string {
  const store = (part: number, value: string) =>
    range(4)
      .map((i) => `${PARTS[part]}${array}[to${i > 0 ? ` + ${i}u` : ""}] = ${value}[${i}];`)
      .join(" ");
  // Rounded as an integer: Mesa folds x - f32(f16(x)) to 0, its version 25 also what goes through pack2x16float.
  const split = /* wgsl */ `let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
      let high = vec4h(rounded);
      ${store(0, "high")}
      let low = vec4h(x - rounded);
      ${store(1, "low")}`;
  const plain = /* wgsl */ `let high = ${halves ? "vec4h(x)" : "x"};
      ${store(0, "high")}`;
  const largest = /* wgsl */ `let size = select(vec4f(), abs(read), abs(read) <= vec4f(${LARGEST_FINITE}));
      most${scale} = max(most${scale}, max(max(size.x, size.y), max(size.z, size.w)));`;
  return fill(
    (four, place) => /* wgsl */ `let read = ${four};
      let to = ${place};
      ${halves ? largest : ""}
      let x = ${halves ? `scale${scale} * read` : "read"};
      ${parts === 2 ? split : plain}`,
  );
}

/**
 * Fills operands; of halves again where a number does not fit its scale, which the first numbers never do. Sums that go
 * on follow the scale: a power of two changes none of their digits. A barrier is behind it.
 */
export function stageAll(
  operands: readonly StagedOperand[],
  sums: readonly string[],
  { halves }: OperandStaging,
  dimension: string,
): string {
  const all = operands.map((operand) => stage(operand, halves)).join("\n    ");
  if (!halves) return `${all}\n    workgroupBarrier();`;
  const scales = operands.map(({ scale }) => scale);
  const rescale = (scale: string) => /* wgsl */ `let all${scale} = bitcast<f32>(workgroupUniformLoad(&largest${scale}));
      if (all${scale} > limit${scale}) {
        let exponent = max(i32(bitcast<u32>(all${scale}) >> 23u) - 127, -100);
        let next = bitcast<f32>(u32(127 + ${TARGET_EXPONENT} - exponent) << 23u);
        ${sums.length > 0 ? `if (limit${scale} > 0.0) { change *= next / scale${scale}; }` : ""}
        scale${scale} = next;
        limit${scale} = ${LARGEST_HALF} / next;
      }`;
  return /* wgsl */ `for (var attempt = 0u; attempt < ${unknownCount(2, dimension)}; attempt++) {
      ${scales.map((scale) => `var most${scale} = 0.0;`).join("\n      ")}
      ${all}
      if (${scales.map((scale) => `most${scale} > limit${scale}`).join(" || ")}) {
        ${scales.map((scale) => `atomicMax(&largest${scale}, bitcast<u32>(most${scale}));`).join("\n        ")}
        atomicAdd(&misfits, 1u);
      }
      let found = workgroupUniformLoad(&misfits); // a barrier too
      if (found == misfitsBefore) { break; }
      misfitsBefore = found;
      ${sums.length > 0 ? "var change = 1.0;" : ""}
      ${scales.map(rescale).join("\n      ")}
      ${sums.map((sum) => `${sum} = subgroupMatrixScalarMultiply(${sum}, change);`).join("\n      ")}
    }`;
}

/** The types of matrices in a kernel. */
export function matrixTypes({ component, M, N, K }: MatrixFacts): string {
  return /* wgsl */ `
alias Left = subgroup_matrix_left<${component}, ${K}, ${M}>;
alias Right = subgroup_matrix_right<${component}, ${N}, ${K}>;
alias Sums = subgroup_matrix_result<f32, ${N}, ${M}>;`;
}

/** The names of a subgroup's sums: `down` by `across` matrices. */
export const sumMatrices = (down: number, across: number) =>
  range(down).flatMap((m) => range(across).map((n) => `matrix${m}_${n}`));

/** Tint zeroes a matrix without an initial value once and not at its declaration, which a loop meets again. */
export const zeroMatrices = (names: readonly string[]) => names.map((name) => `var ${name} = Sums();`).join(" ");

/**
 * The products of a matrix's K from `step` on, which is a variable in the WGSL as `partRow` and `partColumn` are: where
 * the subgroup's part of the result begins.
 */
export function multiply(
  a: StagedOperand,
  b: StagedOperand,
  { M, N }: MatrixFacts,
  down: number,
  across: number,
): string {
  const load = (operand: StagedOperand, isLeft: boolean, part: number, number: number) => {
    const { name, array, alongK, stride } = operand;
    const first = isLeft ? `partRow + ${number * M}u` : `partColumn + ${number * N}u`;
    const order = isLeft === alongK ? "row_major" : "col_major";
    const at = alongK ? `(${first}) * ${stride}u + step` : `step * ${stride}u + ${first}`;
    return `let ${name}${number}_${part} = subgroupMatrixLoad<${isLeft ? "Left" : "Right"}, ${order}>(&${PARTS[part]}${array}, ${at}, ${stride}u);`;
  };
  const loads = range(down).flatMap((m) => range(a.parts).map((part) => load(a, true, part, m)));
  const columns = range(across).flatMap((n) => [
    ...range(b.parts).map((part) => load(b, false, part, n)),
    // Small terms first.
    ...range(down).flatMap((m) =>
      [
        [1, 0],
        [0, 1],
        [0, 0],
      ]
        .filter(([pa = 0, pb = 0]) => pa < a.parts && pb < b.parts)
        .map(([pa, pb]) => {
          const sum = `matrix${m}_${n}`;
          return `${sum} = subgroupMatrixMultiplyAccumulate(${a.name}${m}_${pa}, ${b.name}${n}_${pb}, ${sum});`;
        }),
    ),
  ]);
  return [...loads, ...columns].join("\n      ");
}
