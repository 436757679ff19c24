/**
 * A kernel's text rewritten so that its lanes exchange values through workgroup memory: a text for 16, 32 or 64 lanes runs
 * on any adapter, and needs no subgroups. Every exchange is a call `subgroup...(name, ...)` of a name whose type the text
 * declares (`let name: vec4f = ...`, or a parameter). What is not understood throws; nothing passes through unchanged.
 */
import { expect, it } from "vitest";
import type { Kernel } from "../../src/kernels/kernel.ts";

/** The folds over a subgroup, as WGSL of two values. */
const FOLDS: Readonly<Record<string, string>> = {
  subgroupAdd: "result + other",
  subgroupMax: "max(result, other)",
  subgroupMin: "min(result, other)",
};

/**
 * From which lane a value comes, for the second argument of each exchange. Past the last lane WGSL leaves a shuffle down
 * undefined: it wraps round here, and a kernel that used it would give wrong results.
 */
const SOURCES: Readonly<Record<string, (argument: string) => string>> = {
  subgroupShuffle: (from) => from,
  subgroupBroadcast: (from) => from,
  subgroupBroadcastFirst: () => "0u",
  subgroupShuffleXor: (mask) => `emulatedLane ^ (${mask})`,
  subgroupShuffleDown: (delta) => `(emulatedLane + (${delta})) % EMULATED_LANES`,
};

interface Call {
  readonly name: string;
  readonly arguments: readonly string[];
  readonly start: number;
  readonly end: number;
}

/** Behind the name of a kernel whose text is rewritten. */
const MARK = " (emulated)";

/** By kernel and tile: the lanes at which its rewritten text has run. */
const ran = new Map<string, Set<number>>();

/** Keeps which kernels, as a program names them, ran with these lanes. */
export function recordEmulated(kernels: readonly string[], lanes: number): void {
  for (const kernel of kernels) {
    if (!kernel.includes(MARK)) continue;
    const name = kernel.replace(MARK, "");
    ran.set(name, (ran.get(name) ?? new Set()).add(lanes));
  }
}

/** The last test of a file, where lanes are emulated: prints at how many lanes each of these kernels ran in it, and fails where one of `widths` lacks. */
export function expectEmulated(kernels: readonly string[], widths: readonly number[]): void {
  if (widths.length === 0) return;
  it(`the texts for subgroups of ${widths.join(", ")} lanes were run`, () => {
    const lines: string[] = [];
    for (const kernel of kernels) {
      const tiles = [...ran].filter(([name]) => name.split(" ")[0] === kernel).sort(([a], [b]) => a.localeCompare(b));
      for (const [name, lanes] of tiles) lines.push(`${name} at ${[...lanes].join(", ")} emulated lanes`);
      expect([...new Set(tiles.flatMap(([, lanes]) => [...lanes]))].sort(), kernel).toEqual(widths);
    }
    console.log(`${kernels.length} kernels x ${widths.length} lane widths:\n${lines.join("\n")}`);
  });
}

/** The same kernel, its candidates and its other formats, for subgroups of this many emulated lanes. */
export function emulateSubgroups<B extends string, U extends string>(
  kernel: Kernel<B, U>,
  lanes: number,
): Kernel<B, U> {
  const { candidates, formats } = kernel;
  const wgsl = emulatedText(kernel.name, kernel.wgsl, lanes);
  return {
    ...kernel,
    name: wgsl === kernel.wgsl ? kernel.name : `${kernel.name}${MARK}`,
    wgsl,
    ...(candidates && { candidates: (values) => candidates(values).map((one) => emulateSubgroups(one, lanes)) }),
    ...(formats && { formats: formats.map((one) => emulateSubgroups(one, lanes)) }),
  };
}

/** The text of a kernel for subgroups of `lanes`, without subgroups. One that has none stays as it is. */
export function emulatedText(kernel: string, wgsl: string, lanes: number): string {
  if (!wgsl.includes("enable subgroups;")) return wgsl;
  const refuse = (what: string): never => {
    throw new Error(`${kernel}: ${what} cannot be rewritten for ${lanes} emulated lanes`);
  };
  const plain = wgsl
    .replace(/\/\/.*$/gm, "")
    .replace("enable subgroups;", "")
    .replace(/@diagnostic\(off, subgroup_uniformity\)\s*fn/g, "fn");
  const invocations = workgroupSize(plain) ?? refuse("its workgroup size");
  if (invocations % lanes !== 0) refuse(`a workgroup of ${invocations}`);
  const subgroups = invocations / lanes;

  const declared = new Map<string, string>();
  let text = withUniformLoops(plain, refuse);
  for (let call = lastCall(text); call !== undefined; call = lastCall(text)) {
    text = text.slice(0, call.start) + replacement(call, text, refuse) + text.slice(call.end);
  }
  text = withOwnPlace(text, subgroups, refuse);
  const left = /\bsubgroup(?:[A-Z]\w*|_\w+)/.exec(text);
  if (left !== null) refuse(left[0]);
  const place = text.indexOf("struct Uniforms");
  return `${text.slice(0, place)}${prelude(lanes, invocations)}${[...declared.values()].join("\n")}\n${text.slice(place)}`;

  function replacement({ name, arguments: given, start, end }: Call, within: string, no: typeof refuse): string {
    if (name === "subgroupElect") return "(emulatedLane == 0u)";
    const whole = within.slice(start, end);
    const [value = "", second = ""] = given;
    const type = declaredType(within.slice(0, start), value) ?? no(`${whole}, whose value has no declared type,`);
    declared.set(`exchanged ${type}`, exchangeOf(type, invocations));
    const source = SOURCES[name];
    if (source !== undefined) return `exchange_${wordOf(type)}(${value}, ${source(second)})`;
    const fold = FOLDS[name] ?? no(whole);
    declared.set(`${name} ${type}`, foldOf(name, type, fold, subgroups));
    return `${name.replace("subgroup", "all")}_${wordOf(type)}(${value})`;
  }
}

const wordOf = (type: string) => type.replace(/\W/g, "_");

/** Invocations of a workgroup, which may be named by a constant. */
function workgroupSize(text: string): number | undefined {
  const size = /@workgroup_size\((\w+)\)/.exec(text)?.[1] ?? "";
  const number = /^\d+$/.test(size) ? size : new RegExp(`const ${size}: u32 = (\\d+)u;`).exec(text)?.[1];
  return number === undefined ? undefined : Number(number);
}

/** The last subgroup call of a text: what stands inside another one is rewritten before it. */
function lastCall(text: string): Call | undefined {
  const found = [...text.matchAll(/\b(subgroup[A-Z]\w*)\(/g)].at(-1);
  if (found === undefined) return undefined;
  const parts = [""];
  let depth = 1;
  let at = found.index + found[0].length;
  for (; depth > 0 && at < text.length; at++) {
    const letter = text.charAt(at);
    depth += "([".includes(letter) ? 1 : ")]".includes(letter) ? -1 : 0;
    if (letter === "," && depth === 1) parts.push("");
    else if (depth > 0) parts.push(`${parts.pop()}${letter}`);
  }
  return { name: found[1] ?? "", arguments: parts.map((part) => part.trim()), start: found.index, end: at };
}

/** The type that the last declaration of a name before its use gives it. */
function declaredType(before: string, name: string): string | undefined {
  if (!/^[A-Za-z_]\w*$/.test(name)) return undefined;
  const declaration = new RegExp(`(?:\\b(?:let|var) |[(,]\\s*)${name}(?:\\s*:\\s*([\\w<>]+))?\\s*[=;,)]`, "g");
  const declarations = [...before.matchAll(declaration)].filter(([all]) => /let|var|:/.test(all));
  return declarations.at(-1)?.[1];
}

/**
 * Loops that some subgroups of a workgroup leave before others, which the text marks by the diagnostic: all invocations
 * stay until the last has left, since exchanges are barriers here, and assign nothing meanwhile.
 */
function withUniformLoops(text: string, refuse: (what: string) => never): string {
  const mark = /@diagnostic\(off, subgroup_uniformity\)\s*for \(var (\w+) = ([^;]*); ([^;]*); ([^{]*)\) \{/;
  const found = mark.exec(text);
  if (found === null) return text;
  const [header, name, first, condition, step] = found;
  const start = found.index + header.length;
  let depth = 1;
  let end = start;
  while (depth > 0) depth += { "{": 1, "}": -1 }[text.charAt(end++)] ?? 0;
  const body = text.slice(start, end - 1);
  const guarded = body.replace(/[^;{}]+;/g, (statement) => {
    const [, target, value] = /^\s*(\w+) = ([^;]*);$/.exec(statement) ?? [];
    if (target !== undefined) return ` ${target} = select(${target}, ${value}, goesOn);`;
    return /^\s*(?:let|var) /.test(statement) ? statement : refuse(`"${statement.trim()}" where subgroups part`);
  });
  const loop = `var ${name} = ${first};
  loop {
    let goesOn = ${condition};
    if (!anyInvocation(goesOn)) { break; }
    ${guarded}
    continuing { ${step}; }
  }`;
  return withUniformLoops(text.slice(0, found.index) + loop + text.slice(end), refuse);
}

/**
 * Sets each invocation's lane and subgroup at the start of the entry point. Neighbours are in different subgroups where a
 * workgroup has several: WGSL does not say which invocations are one.
 */
function withOwnPlace(text: string, subgroups: number, refuse: (what: string) => never): string {
  const index = /@builtin\(local_invocation_index\) (\w+)/.exec(text)?.[1];
  const lane = /@builtin\(subgroup_invocation_id\) (\w+): u32/.exec(text)?.[1];
  if (index !== undefined && lane === undefined && subgroups > 1) refuse("its use of local_invocation_index");
  const own = index ?? "emulatedIndex";
  const parameter = index === undefined ? "@builtin(local_invocation_index) emulatedIndex: u32" : "";
  return text.replace(/@builtin\(subgroup_invocation_id\) \w+: u32/, parameter).replace(
    /fn main\([^{]*\{/,
    (start) => `${start}
  emulatedLane = ${own} / ${subgroups}u;
  emulatedSubgroup = ${own} % ${subgroups}u;${lane === undefined ? "" : `\n  let ${lane} = emulatedLane;`}`,
  );
}

/**
 * Exchanges take the two halves of their memory in turn, so that each needs one barrier: whoever writes a half again has
 * passed the barrier of the exchange between, and so has whoever read it. Barriers are most of what a driver compiles here.
 */
const prelude = (lanes: number, invocations: number) => /* wgsl */ `
const EMULATED_LANES: u32 = ${lanes}u;
var<private> emulatedLane: u32;
var<private> emulatedSubgroup: u32;
var<private> emulatedHalf: u32;
var<workgroup> invocationsLeft: atomic<u32>;
var<workgroup> invocationsGoOn: u32;
fn anyInvocation(goesOn: bool) -> bool {
  workgroupBarrier();
  if (goesOn) { atomicAdd(&invocationsLeft, 1u); }
  workgroupBarrier();
  if (emulatedLane == 0u && emulatedSubgroup == 0u) { invocationsGoOn = atomicExchange(&invocationsLeft, 0u); }
  return workgroupUniformLoad(&invocationsGoOn) > 0u;
}
fn nextExchange() { emulatedHalf = ${invocations}u - emulatedHalf; }
fn emulatedPlace(lane: u32) -> u32 { return emulatedHalf + emulatedSubgroup * EMULATED_LANES + lane; }
`;

const exchangeOf = (type: string, invocations: number) => /* wgsl */ `
var<workgroup> exchanged_${wordOf(type)}: array<${type}, ${2 * invocations}>;
fn exchange_${wordOf(type)}(value: ${type}, source: u32) -> ${type} {
  nextExchange();
  exchanged_${wordOf(type)}[emulatedPlace(emulatedLane)] = value;
  workgroupBarrier();
  return exchanged_${wordOf(type)}[emulatedPlace(source)];
}`;

/** One subgroup's result is the same for the whole workgroup, which control flow may depend on: a uniform load. */
function foldOf(name: string, type: string, step: string, subgroups: number): string {
  const word = wordOf(type);
  const result = `${name}_${word}`.replace("subgroup", "result");
  const load =
    subgroups === 1
      ? `return workgroupUniformLoad(&${result}[0]);`
      : `workgroupBarrier();\n  return ${result}[emulatedSubgroup];`;
  return /* wgsl */ `
var<workgroup> ${result}: array<${type}, ${subgroups}>;
fn ${name.replace("subgroup", "all")}_${word}(value: ${type}) -> ${type} {
  nextExchange();
  exchanged_${word}[emulatedPlace(emulatedLane)] = value;
  workgroupBarrier();
  if (emulatedLane == 0u) {
    var result = exchanged_${word}[emulatedPlace(0u)];
    for (var lane = 1u; lane < EMULATED_LANES; lane++) {
      let other = exchanged_${word}[emulatedPlace(lane)];
      result = ${step};
    }
    ${result}[emulatedSubgroup] = result;
  }
  ${load}
}`;
}
