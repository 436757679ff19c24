/**
 * Runs a kernel's WGSL on the CPU, invocation by invocation, with subgroups of any size. Unlike a GPU it stops at
 * whatever WGSL leaves to the adapter: an index outside of its array, lanes of a subgroup or invocations of a workgroup
 * that wait at different places, a value from a lane that does not exist (which is NaN here).
 */
import { setFlagsFromString } from "node:v8";
import type { Kernel, Values } from "../../../src/kernels/kernel.ts";
import { uniformWords } from "../../../src/kernels/kernel.ts";
import { CALLS } from "./code.ts";
import { type Run, type Started, type Translated, translate } from "./translate.ts";
import { Binding, OutOfBounds, type Value } from "./values.ts";

// Translated texts are long functions that run a few times: V8 takes longer to optimise one than it then saves.
setFlagsFromString("--max-optimized-bytecode-size=4000");

type Waiting = readonly [site: number, value?: Value];

interface Invocation {
  readonly lane: number;
  /** Its number in the workgroup. */
  readonly invocation: number;
  /** Its calls, the innermost last. */
  readonly calls: Run[];
  /** Where it waits; undefined once it has ended. */
  at: Waiting | undefined;
  /** What the exchange gives it. */
  given: Value;
}

/**
 * Dispatches a kernel over host memory, which it changes.
 *
 * @param buffers what is bound, by the bindings' names
 * @param lanes of a subgroup; 1 or 0 for kernels without
 * @throws with the kernel's name where an index is out of bounds or invocations part
 */
export function runOnMachine(
  kernel: Kernel,
  values: Values,
  buffers: ReadonlyMap<string, ArrayBuffer>,
  lanes: number,
): void {
  const name = `${kernel.name} ${kernel.variant ?? ""}`.trimEnd();
  runText(name, kernel.wgsl, { grid: kernel.grid(values), uniforms: uniformsOf(kernel, values) }, buffers, lanes);
}

/** The same for a finished text. @param name for messages */
export function runText(
  name: string,
  wgsl: string,
  { grid, uniforms }: { readonly grid: readonly number[]; readonly uniforms: object },
  buffers: ReadonlyMap<string, ArrayBuffer>,
  lanes: number,
): void {
  try {
    const program = translate(wgsl);
    const bindings = Object.fromEntries(
      [...program.bindings].map(([binding, element]) => {
        const bytes = buffers.get(binding);
        if (bytes === undefined) throw new Error(`nothing is bound to ${binding}`);
        return [binding, new Binding(binding, element, bytes)];
      }),
    );
    const here = { lane: 0, invocation: 0 };
    const started = program.start(here, bindings, uniforms);
    const [columns = 1, rows = 1, layers = 1] = grid;
    for (let z = 0; z < layers; z++) {
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++) runWorkgroup({ program, started, here }, [x, y, z], Math.max(1, lanes));
      }
    }
  } catch (error) {
    const message = `${name} at ${lanes} lanes: ${error instanceof Error ? error.message : error}`;
    throw error instanceof OutOfBounds ? new OutOfBounds(message) : new Error(message, { cause: error });
  }
}

/** The uniforms as the kernel's struct has them. */
function uniformsOf(kernel: Kernel, values: Values): object {
  const words = new DataView(uniformWords(kernel, values, [0, 0]).buffer);
  const members = kernel.uniforms.map(({ name, type }, i) => {
    const number = {
      f32: words.getFloat32(4 * i, true),
      u32: words.getUint32(4 * i, true),
      i32: words.getInt32(4 * i, true),
    };
    return [name, number[type]];
  });
  return { ...Object.fromEntries(members), firstGroupX: 0, firstGroupY: 0 };
}

interface Running {
  readonly program: Translated;
  readonly started: Started;
  /** The lane that runs at the moment. */
  readonly here: { lane: number; invocation: number };
}

function runWorkgroup(running: Running, group: number[], lanes: number): void {
  const { program, started, here } = running;
  const [width, height, depth] = program.size;
  const count = width * height * depth;
  if (count % lanes !== 0) throw new Error(`a workgroup of ${count} is not whole subgroups`);
  const subgroups = count / lanes;
  started.reset();
  const argumentsOf = (index: number): Value[] => {
    const own = [index % width, Math.floor(index / width) % height, Math.floor(index / width / height)] as const;
    const [groupX = 0, groupY = 0, groupZ = 0] = group;
    const builtins: Readonly<Record<string, Value>> = {
      workgroup_id: group,
      local_invocation_index: index,
      local_invocation_id: [...own],
      global_invocation_id: [groupX * width + own[0], groupY * height + own[1], groupZ * depth + own[2]],
      // Neighbours are in different subgroups: WGSL does not say which invocations are one.
      subgroup_invocation_id: Math.floor(index / subgroups),
      subgroup_size: lanes,
    };
    return program.builtins.map((name) => {
      const value = builtins[name];
      if (value === undefined) throw new Error(`the built-in value ${name} is not understood`);
      return value;
    });
  };
  if (!program.waits) {
    for (let index = 0; index < count; index++) {
      here.invocation = index;
      started.main(...argumentsOf(index));
    }
    return;
  }
  const invocations = Array.from({ length: count }, (_, index): Invocation => {
    const run = started.main(...argumentsOf(index));
    if (run === undefined) throw new Error("an invocation without steps");
    return { lane: Math.floor(index / subgroups), invocation: index, calls: [run], at: undefined, given: 0 };
  });
  // From the last, so that what a subgroup gets does not hang on its number.
  const teams = Array.from({ length: subgroups }, (_, n) =>
    invocations.filter((_, i) => i % subgroups === n),
  ).reverse();
  for (;;) {
    const sites = teams.map((team) => runToBarrier(running, team));
    const [site] = sites;
    if (sites.some((other) => other !== site)) throw new Error("invocations of a workgroup wait at different places");
    if (site === undefined) return;
  }
}

/** Runs a subgroup until it waits at a barrier or ends: the barrier, or undefined. */
function runToBarrier({ program, started, here }: Running, team: readonly Invocation[]): number | undefined {
  for (;;) {
    for (const one of team) {
      here.lane = one.lane;
      here.invocation = one.invocation;
      one.at = stepped(one);
    }
    const site = team[0]?.at?.[0];
    if (team.some(({ at }) => at?.[0] !== site)) throw new Error("lanes of a subgroup wait at different places");
    if (site === undefined) return undefined;
    if (program.sites[site]?.name.endsWith("Barrier")) return site;
    // The values of all lanes, or what they are folded to.
    const values = team.map(({ at }) => at?.[1] ?? 0);
    const fold = started.folds[site];
    const given = fold === undefined ? values : values.reduce(fold);
    for (const one of team) one.given = given;
  }
}

/** Runs an invocation until it waits; undefined where it has ended. */
function stepped(one: Invocation): Waiting | undefined {
  for (;;) {
    const { done, value } = one.calls.at(-1)?.next(one.given) ?? { done: true, value: undefined };
    if (done === true) {
      one.calls.pop();
      if (one.calls.length === 0) return undefined;
      one.given = value ?? 0;
    } else if (value[0] === CALLS) one.calls.push(value[1] as Run);
    else return value as Waiting;
  }
}
