/**
 * Writes every WGSL text that src/kernels can generate into a folder: `node --import tsx scripts/kernel-texts.ts FOLDER`.
 * With `--compile` in place of a folder, Node's WebGPU compiles them, and those with subgroups once more with the size
 * pinned. No text is run: that each computes what it should is what the kernels' tests show.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { MATRIX_FEATURE } from "../src/engine/gpu/matrices.ts";
import { withPinnedSize } from "../src/engine/gpu/subgroup-size.ts";
import { platform } from "../src/engine/platform/index.ts";
import * as activation from "../src/kernels/activation.ts";
import { adamw } from "../src/kernels/adamw.ts";
import { adamw8bit } from "../src/kernels/adamw-8bit.ts";
import * as attention from "../src/kernels/attention.ts";
import * as dropout from "../src/kernels/dropout.ts";
import * as embedding from "../src/kernels/embedding.ts";
import * as headNorm from "../src/kernels/head-norm.ts";
import {
  type ActivationFormat,
  type Kernel,
  MATRICES,
  type QuantizedFormat,
  type StoredFormat,
  type Values,
} from "../src/kernels/kernel.ts";
import * as ktoObjective from "../src/kernels/kto-objective.ts";
import * as head from "../src/kernels/log-softmax-gather.ts";
import { logitStatistics, logitStatisticsCombine } from "../src/kernels/logit-statistics.ts";
import { matmul } from "../src/kernels/matmul.ts";
import { type MatmulOperands, takesGates, takesNorms, takesTurns } from "../src/kernels/matmul-variant.ts";
import * as norm from "../src/kernels/norm.ts";
import * as outputGate from "../src/kernels/output-gate.ts";
import { projectIntoCache } from "../src/kernels/project-into-cache.ts";
import * as reduce from "../src/kernels/reduce.ts";
import { rope } from "../src/kernels/rope.ts";
import * as sftObjective from "../src/kernels/sft-objective.ts";
import * as shortConvolution from "../src/kernels/short-convolution.ts";
import { kernelTexts as finishedTexts, textOf } from "../src/kernels/texts.ts";
import type { AdapterFacts } from "../src/kernels/wgsl.ts";

/** Every kind of adapter that kernels distinguish. */
const ADAPTERS: readonly AdapterFacts[] = [0, 4, 8, 16, 32, 64].flatMap((subgroupSize) =>
  [true, false].map((software) => ({ subgroupSize, software })),
);

/** Kinds of subgroup matrices: of a software adapter, NVIDIA, Apple and Intel. */
const WITH_MATRICES: readonly AdapterFacts[] = [
  { subgroupSize: 8, software: true, matrices: { component: "f16", M: 8, N: 8, K: 8 } },
  { subgroupSize: 32, software: false, matrices: { component: "f16", M: 16, N: 16, K: 16 } },
  { subgroupSize: 32, software: false, matrices: { component: "f32", M: 8, N: 8, K: 8 } },
  { subgroupSize: 16, software: false, matrices: { component: "f16", M: 8, N: 16, K: 16 } },
];

/** In vectors and not, on both sides of every border at which a tile of attention changes. */
const HEAD_SIZES = [1, 4, 6, 8, 12, 16, 18, 20, 32, 36, 64, 80, 96, 128, 256];
const STORED: readonly StoredFormat[] = ["f32", "f16", "bf16"];
const CODES: readonly QuantizedFormat[] = ["nf4", "int8"];
const ACTIVATIONS: readonly ActivationFormat[] = ["f32", "f16"];

/**
 * Rows of each of the low tiles and more; columns, of wide tiles and of a head too, and steps along k that vectors fit
 * and not; with K 132 split-K.
 */
const MATMUL_ROWS = [3, 4, 7, 8, 13, 16, 33, 36];
const MATMUL_COLUMNS = [33, 36, 516, 16_388];
const MATMUL_STEPS = [33, 36, 132];
/** Rows of the tiles between whose products norms may lie, and which take gates. */
const NORMED_ROWS = [1, 4, 8, 16];

/** Those of LFM2 and of DeltaNet, and one with nothing around it. */
const CONVOLUTIONS: readonly shortConvolution.ShortConvolution[] = [
  { taps: 3, around: "gates" },
  { taps: 4, around: "silu" },
  { taps: 4, around: "nothing" },
];

export interface KernelText {
  /** The name of the kernel, with the tile where several compete. */
  readonly name: string;
  readonly wgsl: string;
}

/** Every text once, in an order that does not change. */
export function kernelTexts(): KernelText[] {
  const names = new Map<string, string>();
  const add = (kernel: Kernel, values: readonly Values[]): void => {
    for (const one of [kernel, ...(kernel.formats ?? [])]) {
      const candidates = values.flatMap((of) => one.candidates?.(of) ?? []);
      for (const { name, variant, wgsl } of candidates.length > 0 ? candidates : [one]) {
        if (!names.has(wgsl)) names.set(wgsl, variant === undefined ? name : `${name}-${variant}`);
      }
    }
  };
  for (const facts of ADAPTERS) {
    for (const kernel of shapedKernels(facts)) add(kernel, [{}]);
    for (const headSize of HEAD_SIZES) for (const kernel of attentionKernels(headSize, facts)) add(kernel, ROW_COUNTS);
    for (const kernel of reducingKernels(facts)) add(kernel, WIDTHS);
  }
  for (const facts of WITH_MATRICES) for (const kernel of matrixKernels(facts)) add(kernel, MANY_KEYS);
  for (const kernel of otherKernels()) add(kernel, WIDTHS);
  // What a model asks for: soft caps, sums that go on, gains with an offset and the like.
  for (const kept of finishedTexts) {
    const wgsl = textOf(kept).replace(/^\/\/ .*\n\n/, ""); // without its title
    if (!names.has(wgsl)) names.set(wgsl, kept.kernel.name);
  }
  const texts = [...names].map(([wgsl, name]) => ({ name, wgsl }));
  const missing = declaredNames().filter((declared) => !texts.some(({ name }) => name.startsWith(declared)));
  if (missing.length > 0) throw new Error(`scripts/kernel-texts.ts generates no text of ${missing.join(", ")}`);
  return texts;
}

/** The names in the sources' kernel declarations, or what they start with: a new kernel is not forgotten here. */
function declaredNames(): string[] {
  const folder = new URL("../src/kernels/", import.meta.url);
  return readdirSync(folder)
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) => [...readFileSync(new URL(file, folder), "utf8").matchAll(/\bname: ["`](\w{2,})/g)])
    .map(([, name = ""]) => name);
}

/** Few rows and many. */
const ROW_COUNTS: readonly Values[] = [
  { T: 1, groupSize: 1 },
  { T: 1000, groupSize: 1 },
];

/** Rows and keys enough for every tile on matrices. */
const MANY_KEYS: readonly Values[] = [{ T: 1000, S: 1000, groupSize: 1, keysPerRow: 1000, M: 100, N: 68, K: 36 }];

/** Whatever a width is called: one that vectors fit and one that they do not. */
const WIDTHS: readonly Values[] = [64, 63].map((width) => {
  const dimensions = otherKernels().flatMap(({ bindings }) => bindings.flatMap((one) => one.dimensions.flat()));
  const uniforms = otherKernels().flatMap((kernel) => kernel.uniforms.map(({ name }) => name));
  return Object.fromEntries([...dimensions, ...uniforms, "C", "D", "W", "n"].map((name) => [name, width]));
});

function shapedKernels(facts: AdapterFacts): Kernel[] {
  const kernels: Kernel[] = [];
  for (const M of MATMUL_ROWS) {
    for (const N of MATMUL_COLUMNS) {
      for (const K of MATMUL_STEPS) {
        for (const format of STORED) {
          for (const layout of ["NN", "NT", "TN"] as const) {
            for (const operands of operandsOf(format, layout === "TN" ? M : K, N)) {
              kernels.push(matmul(layout, { M, N, K }, facts, operands) as Kernel);
            }
          }
          for (const of of [head.logSoftmaxGatherForward, head.logSoftmaxGatherGradient, logitStatistics]) {
            kernels.push(of(M, N, K, facts, format) as Kernel);
          }
        }
        for (const format of CODES) {
          for (const layout of ["NN", "NT"] as const)
            kernels.push(matmul(layout, { M, N, K }, facts, { format }) as Kernel);
          for (const of of [head.logSoftmaxGatherForward, head.logSoftmaxGatherGradient, logitStatistics]) {
            kernels.push(of(M, N, K, facts, format) as Kernel);
          }
        }
      }
    }
  }
  const between = [{ norm: "gives" }, { norm: "takes" }, { gated: true }, { norm: "takes", gated: true }] as const;
  for (const M of NORMED_ROWS) {
    const shape = { M, N: 68, K: 36 };
    if (!takesNorms("NT", shape, facts)) continue;
    for (const format of STORED) {
      for (const operands of between) {
        if ("gated" in operands && !takesGates("NT", shape, facts)) continue;
        kernels.push(matmul("NT", shape, facts, { format, ...operands }) as Kernel);
      }
    }
  }
  for (const M of NORMED_ROWS) {
    const shape = { M, N: 384, K: 36 };
    for (const headSize of [64, 128].filter((size) => takesTurns(shape, size, facts))) {
      for (const norm of ["takes", undefined] as const) {
        for (const format of STORED) kernels.push(projectIntoCache(shape, headSize, facts, { format, norm }) as Kernel);
      }
    }
  }
  return kernels;
}

/** What multiplies on subgroup matrices, by operands in parts and rounded. */
function matrixKernels(facts: AdapterFacts): Kernel[] {
  const products = ["f32", "f16"] as const;
  const matmuls = (["NN", "NT", "TN"] as const).flatMap((layout) =>
    [...STORED, ...(layout === "TN" ? [] : CODES)].flatMap((format) =>
      [
        { M: 100, N: 68, K: 36 },
        { M: 99, N: 67, K: 35 },
      ].flatMap((shape) => products.map((of) => matmul(layout, shape, facts, { format, products: of }) as Kernel)),
    ),
  );
  const heads = STORED.flatMap((format) =>
    [head.logSoftmaxGatherForward, head.logSoftmaxGatherGradient].map((of) => of(100, 68, 36, facts, format) as Kernel),
  );
  const attentions = [64, 128].flatMap((headSize) =>
    products.flatMap((of) =>
      [attention.attentionForward, attention.attentionBackwardQuery, attention.attentionBackwardKeyValue].map(
        (build) => build(headSize, facts, of) as Kernel,
      ),
    ),
  );
  return [...matmuls, ...heads, ...attentions];
}

/** Whole operands, and ranges of wider ones whose first column vectors do not fit. */
function operandsOf(format: StoredFormat, aColumns: number, outColumns: number): MatmulOperands[] {
  return ACTIVATIONS.flatMap((aFormat) =>
    ACTIVATIONS.flatMap((outFormat) => [
      { format, aFormat, outFormat },
      { format, aFormat, outFormat, aWidth: aColumns + 2, aFrom: 1, outWidth: outColumns + 2, outFrom: 1 },
    ]),
  );
}

const attentionKernels = (headSize: number, facts: AdapterFacts): Kernel[] =>
  [attention.attentionForward, attention.attentionBackwardQuery, attention.attentionBackwardKeyValue].map(
    (of) => of(headSize, facts) as Kernel,
  );

const reducingKernels = (facts: AdapterFacts): Kernel[] =>
  [
    norm.rmsNormForward,
    norm.layerNormForward,
    norm.rmsNormBackward,
    norm.layerNormBackward,
    headNorm.headNormForward,
    headNorm.headNormBackward,
    reduce.squarePartials,
  ].map((of) => of(facts) as Kernel);

/** The kernels that are the same on every adapter: all others that src/kernels exports, and the embedding by format. */
function otherKernels(): Kernel[] {
  const modules = [
    activation,
    dropout,
    embedding,
    headNorm,
    ktoObjective,
    head,
    norm,
    outputGate,
    reduce,
    sftObjective,
  ];
  const exported: unknown[] = [
    ...modules.flatMap((one) => Object.values(one)),
    adamw,
    adamw8bit,
    rope,
    logitStatisticsCombine,
  ];
  return [
    ...exported.filter(isKernel),
    ...[...STORED, ...CODES].map((format) => embedding.gatherRows(format) as Kernel),
    ...CONVOLUTIONS.flatMap((of) => Object.values(shortConvolution).map((build) => build(of) as Kernel)),
  ];
}

function isKernel(value: unknown): value is Kernel {
  return typeof value === "object" && value !== null && "wgsl" in value && "bindings" in value;
}

/** Empties the folder and writes each text to `NAME.NUMBER.wgsl`. */
export function writeKernelTexts(folder: string): number {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const texts = kernelTexts();
  for (const [index, { name, wgsl }] of texts.entries()) writeFileSync(join(folder, `${name}.${index}.wgsl`), wgsl);
  return texts.length;
}

/**
 * Compiles every text, and those with subgroups pinned to a size, with Node's WebGPU. @returns the errors, and how many
 * texts need matrices that the adapter lacks
 */
export async function compileKernelTexts(
  texts: readonly KernelText[],
): Promise<{ compiled: number; errors: string[]; leftOut: number }> {
  const { adapter } = await platform.requestAdapter();
  const wanted = ["subgroups", "subgroup-size-control", "shader-f16", MATRIX_FEATURE] as GPUFeatureName[];
  const features = wanted.filter((feature) => adapter.features.has(feature));
  const gpu = await adapter.requestDevice({ requiredFeatures: features });
  const hasMatrices = features.includes(MATRIX_FEATURE as GPUFeatureName);
  const [known, leftOut] = [true, false].map((wants) =>
    texts.filter(({ wgsl }) => (hasMatrices || !wgsl.includes(`enable ${MATRICES};`)) === wants),
  ) as [KernelText[], KernelText[]];
  const sources = known.flatMap(({ name, wgsl }) => {
    const pinned = withPinnedSize(wgsl, 32);
    return pinned === wgsl || !features.includes("subgroup-size-control" as GPUFeatureName)
      ? [{ name, wgsl }]
      : [
          { name, wgsl },
          { name: `${name} pinned`, wgsl: pinned },
        ];
  });
  const errors: string[] = [];
  for (const { name, wgsl } of sources) {
    gpu.pushErrorScope("validation");
    gpu.createShaderModule({ code: wgsl });
    const error = await gpu.popErrorScope();
    if (error !== null) errors.push(`${name}: ${error.message}`);
  }
  gpu.destroy();
  return { compiled: sources.length - errors.length, errors, leftOut: leftOut.length };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [to] = process.argv.slice(2);
  if (to === undefined) {
    console.error("Usage: node --import tsx scripts/kernel-texts.ts FOLDER | --compile");
    process.exitCode = 2;
  } else if (to === "--compile") {
    const { compiled, errors, leftOut } = await compileKernelTexts(kernelTexts());
    if (leftOut > 0) console.log(`${leftOut} texts left out: this adapter has no ${MATRIX_FEATURE}`);
    for (const error of errors.slice(0, 10)) console.error(error);
    console.log(`${compiled} of ${compiled + errors.length} texts compile`);
    process.exitCode = errors.length === 0 ? 0 : 1;
  } else {
    console.log(`${writeKernelTexts(to)} texts in ${to}`);
  }
}
