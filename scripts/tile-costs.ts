/**
 * What the inner loops of each tile of a matmul and of attention cost, counted in the SPIR-V that Tint makes of them, as
 * Markdown tables: what a GPU's driver is given, whichever adapter is here. It times nothing.
 *
 *   npx tsx scripts/tile-costs.ts [lanes]      matmuls: tiles for subgroups of 32 lanes, or as many as are given; with 0
 *                                              those that need no subgroups
 *   npx tsx scripts/tile-costs.ts attention    the loops of attention's kernels, at 32 lanes and without subgroups
 *   npx tsx scripts/tile-costs.ts matrices     both on subgroup matrices of 8 x 8 x 8, on Mesa 26 (newer-lavapipe.sh)
 *
 * Any Vulkan adapter will do; the tiles with subgroups need one that has the feature, those on matrices that Mesa.
 */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../src/kernels/attention.ts";
import { matmul } from "../src/kernels/matmul.ts";
import { matmulTile } from "../src/kernels/matmul-tile.ts";
import type { MatmulLayout, MatmulVariant, TileName } from "../src/kernels/matmul-variant.ts";
import { type AdapterFacts, BASE_FACTS } from "../src/kernels/wgsl.ts";

const LAYOUTS: readonly MatmulLayout[] = ["NN", "NT", "TN"];
/** Shapes of which each tile is a candidate for one: with split-K, of few rows, of a row and many columns. */
const SHAPES = [...[4, 8, 16, 512, 1].map((M) => ({ M, N: 512, K: 512 })), { M: 1, N: 2 ** 15, K: 512 }];
/** Lanes of the software adapters that have subgroups, for the tiles that are theirs alone. */
const SOFTWARE_LANES = 8;
/** The matrices of Mesa 26's lavapipe, and its lanes. */
const MATRICES = { component: "f16", M: 8, N: 8, K: 8 } as const;
const MATRIX_FACTS: AdapterFacts = { ...BASE_FACTS, subgroupSize: 8, matrices: MATRICES };
const HEADS = [64, 128];

/** Counts of numbers, a vector of four as four, of one invocation in one round of the loop. */
export interface Costs {
  fma: number;
  /** Numbers, and the instructions that load them. */
  fromMemory: number;
  memoryLoads: number;
  fromWorkgroup: number;
  workgroupLoads: number;
  exchanges: number;
  clamps: number;
}

/** One instruction of a disassembly: its result, if it has one, and its words from the opcode on. */
interface Instruction {
  readonly result: string;
  readonly words: readonly string[];
}

function instructionsOf(disassembly: string): Instruction[] {
  return disassembly.split("\n").flatMap((line) => {
    const [, result = "", text] = /^\s*(?:(%\w+) = )?(Op.*)$/.exec(line) ?? [];
    return text === undefined ? [] : [{ result, words: text.split(/\s+/) }];
  });
}

const MATRIX_MULTIPLY = "OpCooperativeMatrixMulAddKHR";
const multiplies = ({ words }: Instruction) => words.includes("Fma") || words[0] === MATRIX_MULTIPLY;

/**
 * The bodies of the loops that multiply and add and hold no other loop that does, each from its OpLoopMerge to the label
 * after it; functions that they call are not looked into here.
 */
function innerLoops(instructions: readonly Instruction[]): (readonly Instruction[])[] {
  const open: { merge: string; start: number }[] = [];
  const found: { start: number; end: number }[] = [];
  for (const [index, { result, words }] of instructions.entries()) {
    if (words[0] === "OpLoopMerge") open.push({ merge: words[1] ?? "", start: index });
    const inner = open.at(-1);
    if (words[0] !== "OpLabel" || result !== inner?.merge) continue;
    open.pop();
    const isOuter = found.some(({ start }) => start > inner.start);
    if (!isOuter && instructions.slice(inner.start, index).some(multiplies))
      found.push({ start: inner.start, end: index });
  }
  return found.map(({ start, end }) => instructions.slice(start, end));
}

/** The loop of a matmul: on matrices the one that multiplies them, behind those that fill workgroup memory. */
function innerLoop(instructions: readonly Instruction[]): readonly Instruction[] {
  const loops = innerLoops(instructions);
  const onMatrices = loops.find((loop) => loop.some(({ words }) => words[0] === MATRIX_MULTIPLY));
  const [first] = loops;
  if (first === undefined) throw new Error(`no multiply-add in a loop among ${instructions.length} instructions`);
  return onMatrices ?? first;
}

/** Counts a piece of a module, functions that it calls included. */
function count(piece: readonly Instruction[], module: readonly Instruction[]): Costs {
  const costs = {
    ...{ fma: 0, fromMemory: 0, memoryLoads: 0, fromWorkgroup: 0, workgroupLoads: 0, exchanges: 0, clamps: 0 },
  };
  const pointers = new Map(module.filter(({ words }) => words[0] === "OpAccessChain").map((i) => [i.result, i.words]));
  for (const { words } of piece) {
    const [operation = "", type = "", first = "", second = ""] = words;
    const numbers = Number(/^%v(\d)/.exec(type)?.[1] ?? 1);
    const ofMatrix = (MATRICES.M * MATRICES.K) / MATRIX_FACTS.subgroupSize;
    if (operation === "OpFunctionCall") {
      const start = module.findIndex(({ result, words: [name] }) => name === "OpFunction" && result === first);
      const length = module.slice(start).findIndex(({ words: [name] }) => name === "OpFunctionEnd");
      const called = count(module.slice(start, start + length), module);
      for (const key of Object.keys(costs) as (keyof Costs)[]) costs[key] += called[key];
    } else if (operation === MATRIX_MULTIPLY) {
      costs.fma += ofMatrix * MATRICES.N;
    } else if (operation === "OpLoad" || operation === "OpCooperativeMatrixLoadKHR") {
      const pointer = pointers.get(first)?.[1] ?? "";
      const loaded = operation === "OpLoad" ? numbers : ofMatrix;
      if (pointer.includes("_StorageBuffer_")) {
        costs.fromMemory += loaded;
        costs.memoryLoads += 1;
      } else if (pointer.includes("_Workgroup_")) {
        costs.fromWorkgroup += loaded;
        costs.workgroupLoads += 1;
      }
    } else if (/^OpGroupNonUniform(Shuffle|Broadcast)/.test(operation)) {
      costs.exchanges += numbers;
    } else if (operation === "OpExtInst") {
      const name = words[3] ?? second;
      if (name === "Fma") costs.fma += numbers;
      else if (/^[UNS](Min|Clamp)$/.test(name)) costs.clamps += numbers;
    }
  }
  return costs;
}

/** Dawn's instance, kept to the end of the process: collected while its threads run, it would abort. */
let gpu: GPU | undefined;

interface Text {
  readonly tile: TileName;
  readonly layout: MatmulLayout;
  readonly facts: AdapterFacts;
  readonly wgsl: string;
}

/** A tile in one layout. */
export interface TileCosts extends Costs {
  readonly tile: TileName;
  readonly layout: MatmulLayout;
  /** Of a subgroup; 0 for a tile that needs none. */
  readonly lanes: number;
  /** Rows and columns of the result that a workgroup computes. */
  readonly rows: number;
  readonly columns: number;
  /** Bytes from memory for a multiplication or addition, both operands in f32, however often caches serve them. */
  readonly bytesPerFlop: number;
}

/** Each tile in each layout once, with the first of these facts of which it is a candidate. */
function texts(adapters: readonly AdapterFacts[], isWanted: (tile: string) => boolean): Text[] {
  const found = new Map<string, Text>();
  for (const facts of adapters) {
    for (const shape of SHAPES) {
      for (const layout of LAYOUTS) {
        const kernel = matmul(layout, shape, facts);
        for (const { variant: tile, wgsl } of kernel.candidates?.({}) ?? [kernel]) {
          const key = `${tile} ${layout}`;
          if (tile === undefined || !isWanted(tile) || found.has(key)) continue;
          found.set(key, { tile: tile as TileName, layout, facts, wgsl });
        }
      }
    }
  }
  return [...found.values()];
}

/**
 * The disassembly of each text, in their order: Dawn writes it to the standard output of a process of its own. That is a
 * file, since a pipe that is full would lose what Dawn does not write again.
 */
function disassemble(texts: readonly string[]): string[] {
  const folder = mkdtempSync(join(tmpdir(), "kto-tiles-"));
  const path = join(folder, "dump.txt");
  const file = openSync(path, "w");
  try {
    const child = spawnSync(process.execPath, ["--import", "tsx", fileURLToPath(import.meta.url), "--compile"], {
      input: JSON.stringify(texts),
      encoding: "utf8",
      stdio: ["pipe", file, "pipe"],
    });
    if (child.status !== 0) throw new Error(`compiling failed: ${child.stderr}`);
    const dumps = readFileSync(path, "utf8").split("/* Dumped SPIRV disassembly */").slice(1);
    if (dumps.length !== texts.length) throw new Error(`${dumps.length} disassemblies of ${texts.length} texts`);
    return dumps;
  } finally {
    closeSync(file);
    rmSync(folder, { recursive: true });
  }
}

/** Compiles the texts on standard input, one after another, with Dawn's dump on. */
async function compile(): Promise<void> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array);
  const texts = JSON.parse(Buffer.concat(chunks).toString("utf8")) as string[];
  const { create } = await import("webgpu");
  gpu = create(["enable-dawn-features=dump_shaders,allow_unsafe_apis"]);
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error("no adapter here");
  const wanted: string[] = ["subgroups", "shader-f16", "chromium-experimental-subgroup-matrix"];
  const device = await adapter.requestDevice({
    requiredFeatures: wanted.filter((name) => adapter.features.has(name)) as GPUFeatureName[],
    requiredLimits: { maxComputeWorkgroupStorageSize: adapter.limits.maxComputeWorkgroupStorageSize },
  });
  for (const code of texts) {
    const module = device.createShaderModule({ code });
    await device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } });
  }
  device.destroy();
}

/** What the tiles cost for subgroups of so many lanes; with 0 those that need none. */
export function tileCosts(lanes: number): TileCosts[] {
  const hardware = { ...BASE_FACTS, subgroupSize: lanes };
  const software = { ...BASE_FACTS, subgroupSize: SOFTWARE_LANES, software: true };
  return costsOf(texts(lanes > 0 ? [hardware, BASE_FACTS, software] : [BASE_FACTS], () => true));
}

/** What the tiles on matrices cost; f32 operands are two parts of f16 each there. */
export function matrixTileCosts(): TileCosts[] {
  return costsOf(texts([MATRIX_FACTS, { ...MATRIX_FACTS, software: true }], (tile) => tile.startsWith("matrix")));
}

function costsOf(counted: readonly Text[]): TileCosts[] {
  const dumps = disassemble(counted.map(({ wgsl }) => wgsl));
  return counted.map(({ tile, layout, facts }, index) => {
    const module = instructionsOf(dumps[index] ?? "");
    const { subgroupSize, software, matrices } = facts;
    const variant: MatmulVariant = {
      ...{ layout, tile, subgroupSize, software, continues: false, gated: false },
      ...{ loadsA: "aligned", loadsB: "aligned", vectorStores: true },
      ...{ format: "f32", aFormat: "f32", outFormat: "f32" },
      matrix: matrices && { ...matrices, aParts: 2, bParts: 2 },
    };
    const { rows, columns } = matmulTile(variant);
    const bytesPerFlop = (4 * (rows + columns)) / (2 * rows * columns);
    const lanes = /^(workgroup|registers)/.test(tile) ? 0 : subgroupSize;
    return { tile, layout, lanes, rows, columns, bytesPerFlop, ...count(innerLoop(module), module) };
  });
}

/** A loop of one of attention's kernels. */
export interface AttentionCosts extends Costs {
  readonly kernel: string;
  readonly headSize: number;
  readonly variant: string;
  readonly lanes: number;
  /** Its number among the kernel's loops that multiply, from 1. */
  readonly loop: number;
}

/** What the loops of attention's kernels cost, for the tiles of many rows. */
export function attentionCosts(
  adapters: readonly AdapterFacts[],
  isWanted: (variant: string) => boolean,
): AttentionCosts[] {
  const values = { T: 512, groupSize: 1, keysPerRow: 512 };
  const counted = [attentionForward, attentionBackwardQuery, attentionBackwardKeyValue].flatMap((kernelFor) =>
    HEADS.flatMap((headSize) =>
      adapters.flatMap((facts) => {
        const many = kernelFor(headSize, facts);
        return (many.candidates?.(values) ?? [many])
          .map(({ name, variant = "default", wgsl }) => ({
            name,
            variant,
            wgsl,
            headSize,
            lanes: facts.subgroupSize,
          }))
          .filter(({ variant }) => isWanted(variant));
      }),
    ),
  );
  const dumps = disassemble(counted.map(({ wgsl }) => wgsl));
  return counted.flatMap(({ name: kernel, variant, headSize, lanes }, index) => {
    const module = instructionsOf(dumps[index] ?? "");
    return innerLoops(module).map((loop, at) => ({
      ...{ kernel, headSize, variant, lanes, loop: at + 1 },
      ...count(loop, module),
    }));
  });
}

/** The cells of what a loop costs. */
function cells({ fma, fromMemory, memoryLoads, fromWorkgroup, workgroupLoads, exchanges, clamps }: Costs): string[] {
  const numbers = fromMemory + fromWorkgroup;
  return [
    ...[String(fma), `${fromMemory} in ${memoryLoads}`, `${fromWorkgroup} in ${workgroupLoads}`],
    ...[String(exchanges), String(clamps), numbers === 0 ? "" : (fma / numbers).toFixed(1)],
  ];
}
const COST_HEADS = [
  ...["multiply-adds", "from memory", "from workgroup memory", "exchanges", "clamps", "multiply-adds a number"],
];

/** A Markdown table, of columns of text and then of numbers. */
function markdown(texts: readonly string[], numbers: readonly string[], rows: readonly (readonly string[])[]): string {
  const rule = [...texts.map(() => "---"), ...numbers.map(() => "--:")];
  return [[...texts, ...numbers], rule, ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

/** A Markdown table of what tiles of a matmul cost. */
export function matmulTable(costs: readonly TileCosts[]): string {
  // Layouts of a tile that cost the same share a row.
  const rows = new Map<string, { readonly cells: string[]; readonly layouts: MatmulLayout[] }>();
  for (const { tile, layout, lanes, rows: height, columns, bytesPerFlop, ...own } of costs) {
    const line = [String(lanes), `${height} x ${columns}`, ...cells(own), bytesPerFlop.toFixed(3)];
    const row = rows.get(`${tile} ${line}`) ?? { cells: [tile, ...line], layouts: [] };
    row.layouts.push(layout);
    rows.set(`${tile} ${line}`, row);
  }
  const lines = [...rows.values()].map(({ cells: [tile = "", ...rest], layouts }) => [
    tile,
    layouts.join(" "),
    ...rest,
  ]);
  return markdown(["tile", "layouts"], ["lanes", "result", ...COST_HEADS, "bytes a flop"], lines);
}

/** A Markdown table of what the loops of attention's kernels cost. */
export function attentionTable(costs: readonly AttentionCosts[]): string {
  // Loops that cost the same share a row, and then sizes of heads.
  const rows = new Map<string, { readonly cells: string[]; readonly loops: number[] }>();
  for (const { kernel, headSize, variant, lanes, loop, ...own } of costs) {
    const place = [kernel, String(headSize), variant, String(lanes)];
    const key = [...place, ...cells(own)].join(" ");
    const row = rows.get(key) ?? { cells: [...place, ...cells(own)], loops: [] };
    row.loops.push(loop);
    rows.set(key, row);
  }
  const ofHeads = new Map<string, { readonly cells: string[]; readonly heads: string[] }>();
  for (const {
    cells: [kernel = "", head = "", variant = "", lanes = "", ...own],
    loops,
  } of rows.values()) {
    const line = [variant, lanes, loops.join(" "), ...own];
    const row = ofHeads.get(`${kernel} ${line}`) ?? { cells: [kernel, ...line], heads: [] };
    row.heads.push(head);
    ofHeads.set(`${kernel} ${line}`, row);
  }
  const lines = [...ofHeads.values()].map(({ cells: [kernel = "", ...rest], heads }) => [
    kernel,
    heads.join(" "),
    ...rest,
  ]);
  return markdown(["kernel", "heads of", "tile"], ["lanes", "loops", ...COST_HEADS], lines);
}

/** The tables of matrices by this script under the Node that runs on Mesa 26. */
function onMatrices(): void {
  const root = join(fileURLToPath(import.meta.url), "..", "..");
  const script = join(root, "scripts", "newer-lavapipe.sh");
  const brought = spawnSync(script, [join(root, ".cache", "newer-lavapipe")], { encoding: "utf8" });
  if (brought.status !== 0) throw new Error(`Mesa 26 could not be brought: ${brought.stderr}`);
  const node = brought.stdout.trim().split("\n").at(-1) ?? "";
  const words = ["--import", "tsx", fileURLToPath(import.meta.url), "matrices-here"];
  process.exitCode = spawnSync(node, words, { cwd: root, stdio: "inherit" }).status ?? 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [argument = "32"] = process.argv.slice(2);
  const hardware = { ...BASE_FACTS, subgroupSize: 32 };
  if (argument === "--compile") await compile();
  else if (argument === "matrices") onMatrices();
  else if (argument === "matrices-here") {
    console.log(matmulTable(matrixTileCosts()));
    console.log(`\n${attentionTable(attentionCosts([MATRIX_FACTS], (variant) => variant.startsWith("matrix")))}`);
  } else if (argument === "attention") console.log(attentionTable(attentionCosts([hardware, BASE_FACTS], () => true)));
  else console.log(matmulTable(tileCosts(Number(argument))));
}
