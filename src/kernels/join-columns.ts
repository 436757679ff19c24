/**
 * Matrices side by side, so that one product runs over what are two: [W | B] [x | inner]^T = W x^T + B inner^T.
 *
 *   out[row, first + c] = factor[row] x[row, xFirst + c]      c < columns; factor is 1, or gains[row] - shift
 */
import { type Kernel, kernel, type WeightFormat } from "./kernel.ts";
import { storedBinding, storedBytes, storedElement, storedFunctions } from "./stored.ts";
import { rowElements, rowElementsGrid } from "./wgsl.ts";

type JoinKernel = Kernel<
  "x" | "gains" | "out",
  "R" | "C" | "O" | "G" | "columns" | "first" | "xFirst" | "hasGains" | "shift"
>;

const joinKernel = (format: WeightFormat): JoinKernel =>
  kernel({
    name: "joinColumns",
    read: { x: storedBinding(format, "R, C", false), gains: "f32[G]" },
    write: { out: "f32[R, O]" },
    uniforms: {
      ...{ R: "u32", C: "u32", O: "u32", G: "u32", columns: "u32" },
      ...{ first: "u32", xFirst: "u32", hasGains: "u32", shift: "f32" },
    },
    wgsl: /* wgsl */ `${storedFunctions(format, "x")}
fn element(row: u32, c: u32) {
  let at = row * u.C + u.xFirst + c;
  var value = ${storedElement(format, "x", "at")};
  if (u.hasGains != 0u) { value *= gains[row] - u.shift; }
  out[row * u.O + u.first + c] = value;
}
${rowElements("u.R", "u.columns")}`,
    grid: ({ R = 0, columns = 0 }) => rowElementsGrid(R, columns),
    cost: ({ R = 0, columns = 0 }) => ({ flops: R * columns, bytes: (4 + storedBytes(format)) * R * columns }),
  });

const kernels: Readonly<Record<WeightFormat, JoinKernel>> = {
  f32: joinKernel("f32"),
  f16: joinKernel("f16"),
  bf16: joinKernel("bf16"),
  nf4: joinKernel("nf4"),
  int8: joinKernel("int8"),
};

/** x [R, C] in a stored format, gains [R or more] -> columns of out [R, O]; the others stay as they are. */
export function joinColumns(format: WeightFormat): JoinKernel {
  return kernels[format];
}
