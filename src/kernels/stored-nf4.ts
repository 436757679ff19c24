/**
 * NF4's table (QLoRA, Dettmers et al. 2023): 16 numbers between -1 and 1, the quantiles of a normal distribution, with
 * an exact 0; and the ways in which a kernel looks a code up in it. The numbers are those that bitsandbytes writes.
 */

/** f32 numbers, in ascending order. */
export const NF4_TABLE: Float32Array<ArrayBuffer> = Float32Array.of(
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
);

/**
 * Where a kernel has the table:
 *
 *   constant    as an array that the compiler knows
 *   workgroup   in workgroup memory, in which lanes look up different numbers at once
 *   lanes       in the lanes of a subgroup of 8 or more, which exchange numbers: only whole subgroups may look up
 */
export type TableLookup = "constant" | "workgroup" | { readonly lanes: number };

const numbers = [...NF4_TABLE].map((value) => value.toPrecision(9)).join(", ");

/** `nf4Value(code)` and `nf4Values(four codes)`, and what they need. */
export function nf4Declarations(lookup: TableLookup): string {
  const table = `const NF4 = array<f32, 16>(${numbers});`;
  if (typeof lookup === "object") return inLanes(table, lookup.lanes);
  const at = (code: string) => `${lookup === "constant" ? "NF4" : "nf4Table"}[${code}]`;
  return /* wgsl */ `
${table}${lookup === "workgroup" ? "\nvar<workgroup> nf4Table: array<f32, 16>;" : ""}
fn nf4Value(code: u32) -> f32 { return ${at("code")}; }
fn nf4Values(codes: vec4u) -> vec4f {
  return vec4f(${["x", "y", "z", "w"].map((c) => at(`codes.${c}`)).join(", ")});
}`;
}

/** Eight lanes hold the table in two parts, more in one. */
function inLanes(table: string, lanes: number): string {
  const [mask, look] =
    lanes >= 16
      ? [15, "return subgroupShuffle(nf4Low, code);"]
      : [
          7,
          "let low = subgroupShuffle(nf4Low, code & 7u); return select(low, subgroupShuffle(nf4High, code & 7u), code > 7u);",
        ];
  return /* wgsl */ `
${table}
var<private> nf4Low: f32;${mask === 7 ? "\nvar<private> nf4High: f32;" : ""}
@diagnostic(off, subgroup_uniformity) // whole subgroups look up
fn nf4Value(code: u32) -> f32 { ${look} }
fn nf4Values(codes: vec4u) -> vec4f {
  return vec4f(nf4Value(codes.x), nf4Value(codes.y), nf4Value(codes.z), nf4Value(codes.w));
}`;
}

/**
 * WGSL at the start of an entry point that looks codes up.
 *
 * @param place of an invocation: in its subgroup where lanes have the table, else in its workgroup of `groupSize`
 */
export function nf4Setup(lookup: TableLookup, place: string, groupSize: number): string {
  if (lookup === "constant") return "";
  if (lookup === "workgroup") {
    return `for (var i = ${place}; i < 16u; i += ${groupSize}u) { nf4Table[i] = NF4[i]; }\n  workgroupBarrier();`;
  }
  if (lookup.lanes >= 16) return `nf4Low = NF4[${place} & 15u];`;
  return `nf4Low = NF4[${place} & 7u];\n  nf4High = NF4[(${place} & 7u) + 8u];`;
}
