/**
 * One finished WGSL text of each kernel: what a reader looks at to see what the texts are put together to, and what
 * tells one version of this package from another whose numbers may differ. A run takes its kernels from their own
 * files.
 */
import { gegluBackward, gegluForward, geluBackward, geluForward, swigluBackward, swigluForward } from "./activation.ts";
import { adamw } from "./adamw.ts";
import { adamw8bit } from "./adamw-8bit.ts";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "./attention.ts";
import { doraGains, magnitudePartials, rowSquares, scaleColumns, scaledColumns } from "./dora.ts";
import { addDropout, dropout } from "./dropout.ts";
import { embeddingBackward, embeddingColumnsBackward, gatherColumns, gatherRows, scatterRows } from "./embedding.ts";
import { deltaBackwardKey, deltaBackwardQueryKey, deltaBackwardValue, deltaForward } from "./gated-delta.ts";
import { deltaBackwardGates, deltaBackwardHeads, deltaFactors } from "./gated-delta-heads.ts";
import { gatedNormBackward, gatedNormForward, gatedNormWeightPartials } from "./gated-norm.ts";
import {
  headNormBackward,
  headNormForward,
  headNormWeightPartials,
  widthNormBackward,
  widthNormForward,
  widthNormWeightPartials,
} from "./head-norm.ts";
import { joinColumns } from "./join-columns.ts";
import type { Kernel, Values } from "./kernel.ts";
import { ktoObjective, mismatchedPairSum, tokenSums } from "./kto-objective.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  sequenceSums,
  targetHits,
} from "./log-softmax-gather.ts";
import { logitStatistics, logitStatisticsCombine } from "./logit-statistics.ts";
import { matmul } from "./matmul.ts";
import { mix } from "./mix.ts";
import { likeliestToken, nextRows, nextToken } from "./next-token.ts";
import {
  layerNormBackward,
  layerNormForward,
  normWeightPartials,
  rmsNormBackward,
  rmsNormForward,
  rmsNormResidual,
} from "./norm.ts";
import { joinGates, outputGateBackward, outputGateForward, splitGates } from "./output-gate.ts";
import { projectIntoCache } from "./project-into-cache.ts";
import { addColumnSums, clipAndAdvance, columnPartials, squarePartials } from "./reduce.ts";
import { partialRope, rope, ropeIntoCache } from "./rope.ts";
import { scaleByPosition, scaleRows, softCap } from "./scale.ts";
import { sftObjective, sftTokenSums } from "./sft-objective.ts";
import {
  type ShortConvolution,
  shortConvolutionBackwardInput,
  shortConvolutionBackwardOutput,
  shortConvolutionForward,
  shortConvolutionFromState,
  shortConvolutionState,
  shortConvolutionWeightPartials,
} from "./short-convolution.ts";

import { addUniformNoise } from "./uniform-noise.ts";

/** The facts of lavapipe with AVX2: most texts are made for it, with subgroups. */
const facts = { subgroupSize: 8, software: true };
/** The facts of most GPUs. */
const gpu = { subgroupSize: 32, software: false };
const SIZE = 64;

/** A kernel, and which of its texts is meant. */
export interface KernelText {
  readonly kernel: Kernel;
  /** What the text depends on beside the kernel's name, and how the file is named by it. */
  readonly variant: string;
  readonly suffix?: string;
}

const LANES = "subgroups of 8 on a software adapter";
const HEADS = [
  { headSize: 64, variant: `head size 64, ${LANES}, many rows`, suffix: "-64" },
  { headSize: 8, variant: "head size 8, a lane alone, software adapter, many rows", suffix: "-8" },
];
const wide = { variant: "64 x 64 x 64 in f32, subgroups of 32 on a GPU", suffix: "-gpu" };
const tiled = { variant: `64 x 64 x 64 in f32, ${LANES}` };
const inVectors = { variant: "f32 in vectors of four" };
const reducing = { variant: `f32 in vectors of four, ${LANES}` };
const only = { variant: "the only one" };
/** The convolutions of LFM2 and of DeltaNet. */
const CONVOLUTIONS: readonly (ShortConvolution & { readonly suffix: string })[] = [
  { taps: 3, around: "gates", suffix: "-3-gates" },
  { taps: 4, around: "silu", suffix: "-4-silu" },
];
/** What Gemma's texts differ by. */
const CAP = 50;
const capped = (suffix = "") => ({ suffix: `${suffix}-capped` });
const offset = { suffix: "-offset" };

const onMatrices = { ...gpu, matrices: { component: "f16", M: 16, N: 16, K: 16 } } as const;

/** Tiles that are the default of other adapters, or candidates there. */
const TILES = [
  { tile: "workgroup64x64", of: { subgroupSize: 0, software: false }, adapter: "any adapter without subgroups" },
  { tile: "registers64", of: { subgroupSize: 0, software: true }, adapter: "software adapters without subgroups" },
  { tile: "subgroup16x4", of: { subgroupSize: 32, software: false }, adapter: "subgroups of 32" },
  {
    tile: "matrix64x64",
    of: onMatrices,
    adapter: "subgroups of 32 with matrices of f16, 16 x 16 x 16",
  },
] as const;

/** Every size and number of a kernel is this one. */
function sizesOf({ bindings, uniforms }: Kernel): Values {
  const dimensions = bindings.flatMap(({ dimensions }) => dimensions.flat());
  return Object.fromEntries([...dimensions, ...uniforms.map(({ name }) => name)].map((name) => [name, SIZE]));
}

/** A kernel by one tile alone. */
function byTile(kernel: Kernel, tile: string): Kernel {
  const found = (kernel.candidates?.(sizesOf(kernel)) ?? [kernel]).find(({ variant }) => variant === tile);
  if (found === undefined) throw new Error(`${kernel.name} has no tile ${tile}`);
  const { candidates: _, ...alone } = found;
  return alone;
}

export const kernelTexts: readonly KernelText[] = [
  ...(["NN", "NT", "TN"] as const).map((layout) => ({
    kernel: matmul(layout, { M: SIZE, N: SIZE, K: SIZE }, facts),
    ...tiled,
  })),
  ...TILES.map(({ tile, of, adapter }) => ({
    kernel: byTile(matmul("NT", { M: SIZE, N: SIZE, K: SIZE }, of), tile),
    variant: `${SIZE} x ${SIZE} x ${SIZE} in f32, ${adapter}`,
    suffix: `-${tile}`,
  })),
  ...(["nf4", "int8"] as const).map((format) => ({
    kernel: matmul("NT", { M: SIZE, N: SIZE, K: SIZE }, facts, { format }),
    variant: `${SIZE} x ${SIZE} x ${SIZE}, weights in ${format}, ${LANES}`,
    suffix: `-${format}`,
  })),
  {
    kernel: matmul("NT", { M: SIZE, N: SIZE, K: SIZE }, gpu, { format: "nf4" }),
    variant: `${SIZE} x ${SIZE} x ${SIZE}, weights in nf4, subgroups of 32 on a GPU`,
    suffix: "-nf4-gpu",
  },
  {
    kernel: matmul("NT", { M: 1, N: SIZE, K: SIZE }, facts),
    variant: `1 x ${SIZE} x ${SIZE} in f32, ${LANES}`,
    suffix: "-column4",
  },
  // What generates, a norm before and behind it.
  {
    kernel: matmul("NT", { M: 1, N: SIZE, K: SIZE }, facts, { norm: "gives", aWidth: SIZE, outWidth: SIZE }),
    variant: `1 x ${SIZE} x ${SIZE} in f32, a norm behind it, ${LANES}`,
    suffix: "-column4-gives-norm",
  },
  {
    kernel: matmul("NT", { M: 16, N: SIZE, K: SIZE }, facts, { norm: "takes", gated: true }),
    variant: `16 x ${SIZE} x ${SIZE} in f32, gates, a norm before it, ${LANES}`,
    suffix: "-subgroup16-gated",
  },
  {
    kernel: projectIntoCache({ M: 1, N: SIZE, K: SIZE }, SIZE, facts, { norm: "takes" }),
    variant: `1 x ${SIZE} x ${SIZE} in f32, heads of ${SIZE}, a norm before it, ${LANES}`,
  },
  {
    kernel: matmul("NT", { M: 1, N: SIZE, K: SIZE }, gpu),
    variant: `1 x ${SIZE} x ${SIZE} in f32, subgroups of 32 on a GPU`,
    suffix: "-row4",
  },
  ...HEADS.flatMap(({ headSize, ...named }) =>
    [attentionForward, attentionBackwardQuery, attentionBackwardKeyValue].map((of) => ({
      kernel: of(headSize, facts),
      ...named,
    })),
  ),
  ...[logSoftmaxGatherForward, logSoftmaxGatherGradient, logitStatistics].map((of) => ({
    kernel: of(SIZE, SIZE, SIZE, facts),
    ...tiled,
  })),
  ...[attentionForward, attentionBackwardQuery, attentionBackwardKeyValue].map((of) => ({
    kernel: of(64, facts, "f32", { softCap: CAP }),
    variant: `head size 64, ${LANES}, many rows, soft cap ${CAP}`,
    ...capped("-64"),
  })),
  ...[
    logSoftmaxGatherForward(SIZE, SIZE, SIZE, facts, "f32", SIZE, CAP),
    logSoftmaxGatherGradient(SIZE, SIZE, SIZE, facts, "f32", CAP),
    logitStatistics(SIZE, SIZE, SIZE, facts, "f32", CAP),
  ].map((kernel) => ({ kernel: kernel as Kernel, variant: `${tiled.variant}, soft cap ${CAP}`, ...capped() })),
  ...[rmsNormForward, rmsNormBackward, headNormForward, headNormBackward].map((of) => ({
    kernel: of(facts, true) as Kernel,
    variant: `${reducing.variant}, 1 added to the weights`,
    ...offset,
  })),
  ...[deltaForward, deltaBackwardValue, deltaBackwardQueryKey, deltaBackwardKey].map((of) => ({
    kernel: of({ keySize: 8, valueSize: 12 }, gpu) as Kernel,
    variant: "keys of 8 channels, values of 12, f32 in vectors of four, any GPU",
  })),
  // What a GPU gets, whose tiles differ.
  ...(["NN", "NT", "TN"] as const).map((layout) => ({
    kernel: matmul(layout, { M: SIZE, N: SIZE, K: SIZE }, gpu),
    ...wide,
  })),
  ...[attentionForward, attentionBackwardQuery, attentionBackwardKeyValue].map((of) => ({
    kernel: of(64, gpu),
    variant: "head size 64, subgroups of 32 on a GPU, many rows",
    suffix: "-64-gpu",
  })),
  ...[attentionForward, attentionBackwardQuery, attentionBackwardKeyValue].map((of) => ({
    kernel: byTile(of(64, onMatrices), "matrix32x32"),
    variant: "head size 64, subgroups of 32 with matrices of f16, 16 x 16 x 16",
    suffix: "-64-matrix32x32",
  })),
  ...[logSoftmaxGatherForward, logSoftmaxGatherGradient, logitStatistics].map((of) => ({
    kernel: of(SIZE, SIZE, SIZE, gpu),
    ...wide,
  })),
  ...[
    rmsNormForward,
    layerNormForward,
    rmsNormBackward,
    layerNormBackward,
    headNormForward,
    headNormBackward,
    rmsNormResidual,
    widthNormForward,
    widthNormBackward,
    squarePartials,
    gatedNormForward,
    gatedNormBackward,
    deltaFactors,
    deltaBackwardHeads,
  ].map((of) => ({ kernel: of(facts) as Kernel, ...reducing })),
  ...[
    swigluForward,
    swigluBackward,
    geluForward,
    geluBackward,
    gegluForward,
    gegluBackward,
    rope,
    partialRope,
    scaleRows,
    scaleByPosition,
    softCap(CAP),
    ropeIntoCache,
    nextToken,
    likeliestToken,
    dropout,
    addDropout,
    gatherRows("f32"),
    scatterRows,
    embeddingBackward,
    normWeightPartials,
    headNormWeightPartials,
    widthNormWeightPartials,
    gatedNormWeightPartials,
    splitGates,
    joinGates,
    outputGateForward,
    outputGateBackward,
    columnPartials,
    adamw,
    mix,
    rowSquares("f32"),
    scaleColumns,
    scaledColumns,
    joinColumns("f32"),
  ].map((kernel) => ({ kernel: kernel as Kernel, ...inVectors })),
  ...CONVOLUTIONS.flatMap(({ suffix, ...convolution }) =>
    [
      shortConvolutionForward,
      shortConvolutionFromState,
      shortConvolutionState,
      shortConvolutionBackwardOutput,
      shortConvolutionBackwardInput,
      shortConvolutionWeightPartials,
    ].map((of) => ({
      kernel: of(convolution) as Kernel,
      variant: `${convolution.taps} taps, ${convolution.around} around, ${inVectors.variant}`,
      suffix,
    })),
  ),
  ...[
    nextRows,
    logSoftmaxGatherCombine,
    targetHits,
    sequenceSums,
    logitStatisticsCombine,
    mismatchedPairSum,
    ktoObjective,
    tokenSums,
    sftObjective,
    sftTokenSums,
    addColumnSums,
    clipAndAdvance,
    deltaBackwardGates,
    doraGains,
    magnitudePartials,
    addUniformNoise,
    adamw8bit,
    gatherColumns,
    embeddingColumnsBackward,
  ].map((kernel) => ({ kernel: kernel as Kernel, ...only })),
];

/** The finished WGSL that runs where every size is 64: with many rows, and widths that vectors fit. */
export function textOf({ kernel, variant }: KernelText): string {
  const [chosen = kernel] = kernel.candidates?.(sizesOf(kernel)) ?? [];
  const tile = chosen.variant === undefined ? "" : `, tile ${chosen.variant}`;
  return `// ${kernel.name}: ${variant}${tile}.\n\n${chosen.wgsl}`;
}
