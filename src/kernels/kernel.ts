/**
 * The Kernel contract. To its caller a kernel is a value: its WGSL, what it reads and writes, its few numbers, its grid
 * and its cost. This file knows shapes and text; buffers, pipelines and devices belong to the engine.
 *
 * A binding is declared as `"f32[T, C]"`: element type and shape, where a dimension is a name, a number or a product
 * (`"f32[T, 2*I]"`). Names are solved from the shapes of the tensors that are passed, must agree between bindings, and
 * fill the uniforms of the same name. `"f32[T, C] as vec4f"` lets the WGSL see the same bytes as vectors.
 */

/** The number formats of tensors in memory and in files; arithmetic is always f32. */
export type StoredFormat = "f32" | "f16" | "bf16";

/**
 * Formats of frozen matrices whose numbers are small codes, each times the scale of its block:
 *
 *   nf4    codes of 4 bits into a table, the first of two in the upper half of a byte; scales are f32 (QLoRA, Dettmers
 *          et al. 2023; the bytes of bitsandbytes)
 *   int8   codes are i8; scales are f16 (the numbers of ggml's q8_0, codes and scales apart)
 */
export type QuantizedFormat = "nf4" | "int8";

/** What a matrix of weights may be stored as. */
export type WeightFormat = StoredFormat | QuantizedFormat;

/** Bits of a code, numbers of a block, which follow one another in the whole matrix, and the format of scales. */
export const QUANTIZED = {
  nf4: { bits: 4, block: 64, scales: "f32" },
  int8: { bits: 8, block: 32, scales: "f16" },
} as const satisfies Readonly<Record<QuantizedFormat, unknown>>;

export function isQuantized(format: ElementType): format is QuantizedFormat {
  return format in QUANTIZED;
}

/** The formats of a pass's activations in memory; arithmetic is always f32. */
export type ActivationFormat = "f32" | "f16";

/**
 * f16, bf16 and quantised codes are packed, the lowest part of a 32-bit word first. WGSL sees words (`stored.ts`
 * unpacks), or, where a binding is declared `as f16` or `as vec4h`, numbers of its own type f16, for which the adapter
 * needs `shader-f16`.
 */
export type ElementType = WeightFormat | "u32" | "i32";

/** The types that WGSL has without a feature: what a uniform may be. */
export type UniformType = "f32" | "u32" | "i32";

/** Anything with a shape and an element type; the engine's Tensor is one. */
export interface Shaped {
  readonly shape: readonly number[];
  readonly dtype: ElementType;
}

/** The numbers of one dispatch: dimensions and uniforms by name. */
export type Values = Readonly<Record<string, number>>;

export type Grid = readonly [number] | readonly [number, number] | readonly [number, number, number];

/** Work of one dispatch: floating-point operations, and bytes that must cross memory at least once. */
export interface Cost {
  readonly flops: number;
  readonly bytes: number;
}

export interface Binding {
  readonly name: string;
  readonly access: "read" | "readWrite";
  readonly dtype: ElementType;
  /** Each dimension as its factors: names and numbers. */
  readonly dimensions: readonly (readonly (string | number)[])[];
  /** The element type that the WGSL sees. */
  readonly view: string;
  /** The quantised binding whose scales these are: they come with its tensor and have no argument of their own. */
  readonly scalesOf?: string;
}

/** The name of the binding that holds the scales of a quantised one. */
export const scalesName = (binding: string): string => `${binding}Scales`;

export interface Kernel<B extends string = string, U extends string = string> {
  readonly name: string;
  readonly bindings: readonly Binding[];
  readonly uniforms: readonly { readonly name: U; readonly type: UniformType }[];
  /** Its grid may be dispatched in pieces: every workgroup computes the same in whichever piece it is. */
  readonly divisible?: boolean | undefined;
  /** Complete module: bindings, uniforms and body. Equal text means equal pipeline. */
  readonly wgsl: string;
  grid(values: Values): Grid;
  cost(values: Values): Cost;
  /**
   * Kernels with the same bindings and uniforms that compute the same for these values, the default first; without it
   * the kernel is its own only candidate.
   */
  candidates?(values: Values): readonly Kernel<B, U>[];
  /**
   * Contents of bindings, by name, where these decide how long the kernel takes: candidates are timed with them, since
   * the run's own are not there yet or are those of another batch.
   */
  readonly trial?: ((values: Values) => TrialContents) | undefined;
  /** Kernels of the same result for activations in other formats: a dispatch takes the one that its tensors fit. */
  readonly formats?: readonly Kernel<B, U>[];
  /** Names this candidate among those that it competes with. */
  readonly variant?: string;
  /** Where several candidates compete: what of the values decides which is fastest. */
  readonly tuningClass?: string;
  /** The work by which it is judged whether they are worth a measurement, where it is not that of the dispatch. */
  readonly tuningFlops?: number | undefined;
  /** Only carries the names for the type checker. */
  readonly bindingNames?: B;
}

/** Contents of some bindings: integers of 32 bits. */
export type TrialContents = Readonly<Record<string, Uint32Array<ArrayBuffer>>>;

/** Tensors for every binding, numbers for the uniforms that no shape determines. */
export type KernelArguments<T extends Shaped, B extends string, U extends string> = { readonly [K in B]: T } & {
  readonly [K in Exclude<U, B>]?: number;
};

export interface KernelSource<R extends string, W extends string, U extends string> {
  readonly name: string;
  /** Bindings that are only read. */
  readonly read: Readonly<Record<R, string>>;
  /** Bindings that are written, or read and written. */
  readonly write: Readonly<Record<W, string>>;
  readonly uniforms: Readonly<Record<U, UniformType>>;
  /** WGSL extensions to enable, e.g. "subgroups". */
  readonly enable?: readonly string[];
  /**
   * Workgroups are independent of one another and take their place from `placeInGrid(workgroup_id)`, so that a grid of
   * one or two dimensions may be dispatched in pieces. For kernels whose work grows with the product of several sizes.
   */
  readonly divisible?: boolean;
  readonly trial?: (values: Values) => TrialContents;
  /** The body: functions and an entry point named `main`; uniforms are members of `u`. */
  readonly wgsl: string;
  readonly grid: (values: Values) => Grid;
  readonly cost: (values: Values) => Cost;
}

/**
 * The first of several kernels that compute the same, with all of them as its candidates. @param tuningClass of the
 * shape
 */
export function oneOf<B extends string, U extends string>(
  kernels: readonly { readonly variant: string; readonly kernel: Kernel<B, U> }[],
  tuningClass: string,
  tuningFlops?: number,
): Kernel<B, U> {
  const named = kernels.map(({ variant, kernel: one }) => ({ ...one, variant, tuningClass, tuningFlops }));
  const [first] = named;
  if (first === undefined) throw new Error("a kernel without candidates");
  return named.length === 1 ? first : { ...first, candidates: () => named };
}

/** A kernel of activations, written once: the f32 one, with those for other formats beside it. */
export function inFormats<B extends string, U extends string>(
  build: (format: ActivationFormat) => Kernel<B, U>,
): Kernel<B, U> {
  return { ...build("f32"), formats: [build("f16")] };
}

/** The kernel among `formats` whose element types are those of the tensors; without one, the kernel itself. */
export function fittingFormat<B extends string, U extends string>(
  target: Kernel<B, U>,
  args: Readonly<Record<string, unknown>>,
): Kernel<B, U> {
  const fits = ({ bindings }: Kernel) =>
    bindings.every(
      ({ name, dtype, scalesOf }) => scalesOf !== undefined || (args[name] as Shaped | undefined)?.dtype === dtype,
    );
  return target.formats?.find(fits) ?? target;
}

/** Storage buffers of one stage that every WebGPU adapter supports; a kernel declares no more. */
export const MAX_STORAGE_BINDINGS = 8;

/** The WGSL extension for matrices that a subgroup multiplies; Dawn names it so. */
export const MATRICES = "chromium_experimental_subgroup_matrix";

/** Builds a kernel from its declaration. Throws where a binding cannot be parsed or there are too many. */
export function kernel<R extends string, W extends string, U extends string>(
  source: KernelSource<R, W, U>,
): Kernel<R | W, U> {
  const bindings = [
    ...Object.entries<string>(source.read).flatMap(([name, text]) =>
      withScales(parseBinding(source.name, name, text, "read")),
    ),
    ...Object.entries<string>(source.write).map(([name, text]) => parseBinding(source.name, name, text, "readWrite")),
  ];
  if (bindings.length > MAX_STORAGE_BINDINGS) {
    throw new Error(`${source.name} declares ${bindings.length} storage bindings, more than ${MAX_STORAGE_BINDINGS}`);
  }
  const uniforms = Object.entries<UniformType>(source.uniforms).map(([name, type]) => ({ name: name as U, type }));
  const members = uniforms.map(({ name, type }) => `${name}: ${type}`);
  if (source.divisible) members.push("firstGroupX: u32", "firstGroupY: u32");
  const halves = bindings.some(({ view }) => view === "f16" || view === "vec4h") ? ["f16"] : [];
  const header = [
    ...[...new Set([...halves, ...(source.enable ?? [])])].map((extension) => `enable ${extension};`),
    // Tint cannot see that what a subgroup's number leads to is the same for all its lanes.
    ...(source.enable?.includes(MATRICES) ? ["diagnostic(off, chromium.subgroup_matrix_uniformity);"] : []),
    `struct Uniforms { ${members.join(", ")} }`,
    "@group(0) @binding(0) var<uniform> u: Uniforms;",
    ...bindings.map(
      (binding, index) =>
        `@group(0) @binding(${index + 1}) var<storage, ${binding.access === "read" ? "read" : "read_write"}> ${binding.name}: array<${binding.view}>;`,
    ),
    ...(source.divisible ? [PLACE_IN_GRID] : []),
  ];
  return {
    name: source.name,
    bindings,
    uniforms,
    divisible: source.divisible,
    trial: source.trial,
    wgsl: `${header.join("\n")}\n\n${indented(source.wgsl)}\n`,
    grid: source.grid,
    cost: source.cost,
  };
}

/** WGSL: where a workgroup of a piece is in the whole grid. */
const PLACE_IN_GRID =
  "fn placeInGrid(group: vec3u) -> vec3u { return group + vec3u(u.firstGroupX, u.firstGroupY, 0u); }";

/** Indents each line by the braces and parentheses around it; drops empty lines inside functions. */
function indented(wgsl: string): string {
  const lines: string[] = [];
  let depth = 0;
  for (const line of wgsl.split("\n").map((text) => text.trim())) {
    if (line === "" && (depth > 0 || lines.at(-1) === "" || lines.length === 0)) continue;
    const { closing, change } = nesting(line);
    lines.push(line === "" ? "" : "  ".repeat(Math.max(0, depth - closing)) + line);
    depth += change;
  }
  return lines.join("\n").trimEnd();
}

/**
 * How many braces and parentheses a line closes before anything else stands in it, and by how many it opens more than
 * it closes; without its comment. Hundreds of kernels are written when a command starts, so it goes by characters.
 */
function nesting(line: string): { closing: number; change: number } {
  let [closing, change] = [0, 0];
  let isStart = true;
  for (let at = 0; at < line.length; at++) {
    const char = line[at];
    if (char === "/" && line[at + 1] === "/") break;
    if (char === "(" || char === "{") change++;
    else if (char === ")" || char === "}") {
      change--;
      if (isStart) closing++;
      continue;
    }
    if (char !== " " && char !== "\t") isStart = false;
  }
  return { closing, change };
}

/** A binding, and that of its scales where it is quantised. */
function withScales(binding: Binding): Binding[] {
  if (!isQuantized(binding.dtype)) return [binding];
  const { scales: dtype } = QUANTIZED[binding.dtype];
  const view = dtype === "f32" ? "f32" : "u32";
  const scales = { name: scalesName(binding.name), dtype, view, dimensions: [], scalesOf: binding.name };
  return [binding, { ...scales, access: "read" }];
}

function parseBinding(kernelName: string, name: string, text: string, access: Binding["access"]): Binding {
  const match = /^(f32|u32|i32|f16|bf16|nf4|int8)\[([^\]]*)\](?: as (\w+))?$/.exec(text.trim());
  if (!match) throw new Error(`${kernelName}: binding ${name}: cannot parse ${JSON.stringify(text)}`);
  const [, dtype = "", inside = "", view] = match;
  const dimensions = inside.split(",").map((dimension) =>
    dimension
      .split("*")
      .map((factor) => factor.trim())
      .map((factor) => (/^\d+$/.test(factor) ? Number(factor) : factor)),
  );
  return {
    name,
    access,
    dtype: dtype as ElementType,
    dimensions,
    view: view ?? (["f32", "i32"].includes(dtype) ? dtype : "u32"),
  };
}

/**
 * Solves the dimensions of a dispatch and collects its uniforms. Throws with kernel, binding, shape found and shape
 * wanted when a tensor does not fit, and when a uniform is neither passed nor a dimension.
 */
export function resolveValues(target: Kernel, args: Readonly<Record<string, unknown>>): Values {
  const values: Record<string, number> = {};
  for (const { name } of target.uniforms) {
    const value = args[name];
    if (typeof value === "number") values[name] = value;
  }
  for (const binding of target.bindings) {
    if (binding.scalesOf !== undefined) continue;
    const tensor = args[binding.name] as Shaped | undefined;
    if (tensor === undefined) throw new Error(`${target.name}: no tensor for ${binding.name}`);
    if (tensor.dtype !== binding.dtype) {
      throw new Error(`${target.name}: ${binding.name} is ${tensor.dtype}, wanted ${binding.dtype}`);
    }
    if (tensor.shape.length !== binding.dimensions.length || !matchShape(tensor.shape, binding, values)) {
      const wanted = binding.dimensions.map((factors) => factors.join("*")).join(", ");
      const known = Object.entries(values)
        .filter(([name]) => binding.dimensions.some((factors) => factors.includes(name)))
        .map(([name, value]) => `${name} = ${value}`);
      throw new Error(
        `${target.name}: ${binding.name} has shape [${tensor.shape.join(", ")}], wanted [${wanted}]${known.length > 0 ? ` with ${known.join(", ")}` : ""}`,
      );
    }
  }
  for (const { name } of target.uniforms) {
    if (values[name] === undefined) throw new Error(`${target.name}: no value for uniform ${name}`);
  }
  return values;
}

/**
 * The numbers of the uniform struct as 32-bit words, padded to the 16 bytes that a uniform binding needs.
 *
 * @param first workgroup, in the whole grid, of the piece that is dispatched: x, y; of no matter where a kernel is not
 * divisible
 */
export function uniformWords(target: Kernel, values: Values, first: readonly [number, number]): Uint32Array {
  const count = target.uniforms.length + (target.divisible ? first.length : 0);
  const words = new Uint32Array(Math.ceil(Math.max(1, count) / 4) * 4);
  if (target.divisible) words.set(first, target.uniforms.length);
  const view = new DataView(words.buffer);
  target.uniforms.forEach(({ name, type }, index) => {
    const value = values[name] ?? 0;
    if (type === "f32") view.setFloat32(index * 4, value, true);
    else if (type === "i32") view.setInt32(index * 4, value, true);
    else view.setUint32(index * 4, value, true);
  });
  return words;
}

function matchShape(shape: readonly number[], binding: Binding, values: Record<string, number>): boolean {
  return binding.dimensions.every((factors, axis) => {
    const size = shape[axis] ?? 0;
    let known = 1;
    let unknown: string | undefined;
    for (const factor of factors) {
      const value = typeof factor === "number" ? factor : values[factor];
      if (value !== undefined) known *= value;
      else if (unknown === undefined && typeof factor === "string") unknown = factor;
      else return false;
    }
    if (unknown === undefined) return size === known;
    if (known === 0 || size % known !== 0) return false;
    values[unknown] = size / known;
    return true;
  });
}
