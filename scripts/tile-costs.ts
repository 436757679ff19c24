/**
 * What the inner loop of each tile of a matmul costs, counted in the SPIR-V that Tint makes of it, as a Markdown table:
 * what a GPU's driver is given, whichever adapter is here. It times nothing. `npx tsx scripts/tile-costs.ts [lanes]`
 * counts tiles for subgroups of 32 lanes, or as many as are given; with 0 those that need no subgroups. Any Vulkan adapter
 * will do; the tiles with subgroups need one that has the feature.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { matmul } from "../src/kernels/matmul.ts";
import { matmulTile } from "../src/kernels/matmul-tile.ts";
import type { MatmulLayout, MatmulVariant, TileName } from "../src/kernels/matmul-variant.ts";
import { BASE_FACTS } from "../src/kernels/wgsl.ts";

const LAYOUTS: readonly MatmulLayout[] = ["NN", "NT", "TN"];
/** A shape for which split-K is a candidate too. */
const SHAPE = { M: 512, N: 512, K: 512 };

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

/** The body of the innermost loop that multiplies and adds, from its OpLoopMerge to the label after it. */
function innerLoop(instructions: readonly Instruction[]): readonly Instruction[] {
  const open: { merge: string; start: number }[] = [];
  const first = instructions.findIndex(({ words }) => words.includes("Fma"));
  if (first < 0) throw new Error("a tile without a multiply-add");
  for (const [index, { result, words }] of instructions.entries()) {
    if (words[0] === "OpLoopMerge") open.push({ merge: words[1] ?? "", start: index });
    const inner = open.at(-1);
    if (words[0] !== "OpLabel" || result !== inner?.merge) continue;
    if (inner.start < first && first < index) return instructions.slice(inner.start, index);
    open.pop();
  }
  throw new Error("a multiply-add outside of any loop");
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
    if (operation === "OpFunctionCall") {
      const start = module.findIndex(({ result, words: [name] }) => name === "OpFunction" && result === first);
      const length = module.slice(start).findIndex(({ words: [name] }) => name === "OpFunctionEnd");
      const called = count(module.slice(start, start + length), module);
      for (const key of Object.keys(costs) as (keyof Costs)[]) costs[key] += called[key];
    } else if (operation === "OpLoad") {
      const pointer = pointers.get(first)?.[1] ?? "";
      if (pointer.includes("_StorageBuffer_")) {
        costs.fromMemory += numbers;
        costs.memoryLoads += 1;
      } else if (pointer.includes("_Workgroup_")) {
        costs.fromWorkgroup += numbers;
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
  readonly lanes: number;
  readonly wgsl: string;
}

/** A tile in one layout. */
export interface TileCosts extends Costs {
  readonly tile: TileName;
  readonly layout: MatmulLayout;
  /** Rows and columns of the result that a workgroup computes. */
  readonly rows: number;
  readonly columns: number;
  /** Bytes from memory for a multiplication or addition, both operands in f32, however often caches serve them. */
  readonly bytesPerFlop: number;
}

/** Each tile in each layout once, with the facts of the adapter that it is a candidate of. */
function texts(lanes: number): Text[] {
  const found = new Map<string, Text>();
  for (const facts of [{ ...BASE_FACTS, subgroupSize: lanes }, BASE_FACTS]) {
    for (const M of [4, 8, 512, 1]) {
      for (const layout of LAYOUTS) {
        const kernel = matmul(layout, { ...SHAPE, M }, facts);
        for (const { variant: tile, wgsl } of kernel.candidates?.({}) ?? [kernel]) {
          const key = `${tile} ${layout}`;
          if (tile === undefined || found.has(key)) continue;
          found.set(key, { tile: tile as TileName, layout, lanes: facts.subgroupSize, wgsl });
        }
      }
    }
  }
  return [...found.values()];
}

/** The disassembly of each text, in their order: Dawn writes it to the standard output of a process of its own. */
function disassemble(texts: readonly string[]): string[] {
  const child = spawnSync(process.execPath, ["--import", "tsx", fileURLToPath(import.meta.url), "--compile"], {
    input: JSON.stringify(texts),
    encoding: "utf8",
    maxBuffer: 2 ** 30,
  });
  if (child.status !== 0) throw new Error(`compiling failed: ${child.stderr}`);
  const dumps = child.stdout.split("/* Dumped SPIRV disassembly */").slice(1);
  if (dumps.length !== texts.length) throw new Error(`${dumps.length} disassemblies of ${texts.length} texts`);
  return dumps;
}

/** Compiles the texts on standard input, one after another, with Dawn's dump on. */
async function compile(): Promise<void> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array);
  const texts = JSON.parse(Buffer.concat(chunks).toString("utf8")) as string[];
  const { create } = await import("webgpu");
  gpu = create(["enable-dawn-features=dump_shaders"]);
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error("no adapter here");
  const device = await adapter.requestDevice({
    requiredFeatures: adapter.features.has("subgroups") ? ["subgroups"] : [],
  });
  for (const code of texts) {
    const module = device.createShaderModule({ code });
    await device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } });
  }
  device.destroy();
}

/** What the tiles cost for subgroups of so many lanes; with 0 those that need none. */
export function tileCosts(lanes: number): TileCosts[] {
  const counted = texts(lanes);
  const dumps = disassemble(counted.map(({ wgsl }) => wgsl));
  return counted.map(({ tile, layout, lanes: subgroupSize }, index) => {
    const module = instructionsOf(dumps[index] ?? "");
    const formats = { format: "f32", aFormat: "f32", outFormat: "f32" } as const;
    const loads = { loadsA: "aligned", loadsB: "aligned", vectorStores: true } as const;
    const variant: MatmulVariant = {
      layout,
      tile,
      ...loads,
      ...formats,
      subgroupSize,
      software: false,
      continues: false,
      gated: false,
    };
    const { rows, columns } = matmulTile(variant);
    const bytesPerFlop = (4 * (rows + columns)) / (2 * rows * columns);
    return { tile, layout, rows, columns, bytesPerFlop, ...count(innerLoop(module), module) };
  });
}

/** A row of the table without its tile and layouts. */
function cells({ rows, columns, bytesPerFlop, ...costs }: TileCosts): string {
  return [
    ...[`${rows} x ${columns}`, costs.fma, `${costs.fromMemory} in ${costs.memoryLoads}`],
    ...[`${costs.fromWorkgroup} in ${costs.workgroupLoads}`, costs.exchanges, costs.clamps],
    ...[(costs.fma / (costs.fromMemory + costs.fromWorkgroup)).toFixed(1), bytesPerFlop.toFixed(3)],
  ].join(" | ");
}

function table(lanes: number): string {
  // Layouts of a tile that cost the same share a row.
  const rows = new Map<string, { readonly line: string; readonly layouts: MatmulLayout[] }>();
  for (const costs of tileCosts(lanes)) {
    const line = cells(costs);
    const row = rows.get(`${costs.tile} ${line}`) ?? { line, layouts: [] };
    row.layouts.push(costs.layout);
    rows.set(`${costs.tile} ${line}`, row);
  }
  const head = [
    ...["tile", "layouts", "result", "multiply-adds", "from memory", "from workgroup memory", "exchanges", "clamps"],
    ...["multiply-adds a number", "bytes a flop"],
  ].join(" | ");
  const rule = "--- | --- | --- | --: | --: | --: | --: | --: | --: | --:";
  const lines = [...rows].map(([key, { line, layouts }]) => `${key.split(" ")[0]} | ${layouts.join(" ")} | ${line}`);
  return [head, rule, ...lines].map((line) => `| ${line} |`).join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [argument = "32"] = process.argv.slice(2);
  if (argument === "--compile") await compile();
  else console.log(table(Number(argument)));
}
