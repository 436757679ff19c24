/**
 * One finished WGSL text of each kernel, kept beside this file, so that a reader sees what the texts are put together to
 * and a review what a change makes of them. `npx vitest run test/kernels/texts.test.ts -u` writes them; in CI a text
 * that differs fails. That a text is right, the kernel's own test shows.
 */

import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { geluBackward, geluForward, swigluBackward, swigluForward } from "../../src/kernels/activation.ts";
import { adamw } from "../../src/kernels/adamw.ts";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../src/kernels/attention.ts";
import { addDropout, dropout } from "../../src/kernels/dropout.ts";
import { embeddingBackward, gatherRows, scatterRows } from "../../src/kernels/embedding.ts";
import { headNormBackward, headNormForward, headNormWeightPartials } from "../../src/kernels/head-norm.ts";
import type { Kernel } from "../../src/kernels/kernel.ts";
import { ktoObjective, mismatchedPairSum, tokenSums } from "../../src/kernels/kto-objective.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  sequenceSums,
  targetHits,
} from "../../src/kernels/log-softmax-gather.ts";
import { logitStatistics, logitStatisticsCombine } from "../../src/kernels/logit-statistics.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import {
  layerNormBackward,
  layerNormForward,
  normWeightPartials,
  rmsNormBackward,
  rmsNormForward,
} from "../../src/kernels/norm.ts";
import { addColumnSums, clipAndAdvance, columnPartials, squarePartials } from "../../src/kernels/reduce.ts";
import { rope } from "../../src/kernels/rope.ts";
import { sftObjective, sftTokenSums } from "../../src/kernels/sft-objective.ts";
import { candidate } from "../helpers/gpu.ts";

const FOLDER = fileURLToPath(new URL("texts/", import.meta.url));

/** As lavapipe with AVX2 is: most texts are made for it, and subgroups are in them. */
const facts = { subgroupSize: 8, software: true };
/** As most GPUs are. */
const gpu = { subgroupSize: 32, software: false };
const SIZE = 64;

interface Text {
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

/** Tiles that are the default of other adapters, or candidates there. */
const TILES = [
  { tile: "workgroup64x64", of: { subgroupSize: 0, software: false }, adapter: "any adapter without subgroups" },
  { tile: "registers64", of: { subgroupSize: 0, software: true }, adapter: "software adapters without subgroups" },
  { tile: "subgroup16x4", of: { subgroupSize: 32, software: false }, adapter: "subgroups of 32" },
];

const texts: readonly Text[] = [
  ...(["NN", "NT", "TN"] as const).map((layout) => ({
    kernel: matmul(layout, { M: SIZE, N: SIZE, K: SIZE }, facts),
    ...tiled,
  })),
  ...TILES.map(({ tile, of, adapter }) => ({
    kernel: candidate(matmul("NT", { M: SIZE, N: SIZE, K: SIZE }, of), tile),
    variant: `${SIZE} x ${SIZE} x ${SIZE} in f32, ${adapter}`,
    suffix: `-${tile}`,
  })),
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
  // What a GPU gets, whose tiles differ: the emulated lanes of the kernels' tests run these.
  ...(["NN", "NT", "TN"] as const).map((layout) => ({
    kernel: matmul(layout, { M: SIZE, N: SIZE, K: SIZE }, gpu),
    ...wide,
  })),
  ...[attentionForward, attentionBackwardQuery, attentionBackwardKeyValue].map((of) => ({
    kernel: of(64, gpu),
    variant: "head size 64, subgroups of 32 on a GPU, many rows",
    suffix: "-64-gpu",
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
    squarePartials,
  ].map((of) => ({ kernel: of(facts) as Kernel, ...reducing })),
  ...[
    swigluForward,
    swigluBackward,
    geluForward,
    geluBackward,
    rope,
    dropout,
    addDropout,
    gatherRows("f32"),
    scatterRows,
    embeddingBackward,
    normWeightPartials,
    headNormWeightPartials,
    columnPartials,
    adamw,
  ].map((kernel) => ({ kernel: kernel as Kernel, ...inVectors })),
  ...[
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
  ].map((kernel) => ({ kernel: kernel as Kernel, ...only })),
];

/** The text that runs where every size is 64: with many rows, and widths that vectors fit. */
function textOf({ kernel, variant }: Text): string {
  const sizes = Object.fromEntries(
    kernel.bindings.flatMap(({ dimensions }) => dimensions.flat()).map((n) => [n, SIZE]),
  );
  const values = { ...sizes, ...Object.fromEntries(kernel.uniforms.map(({ name }) => [name, SIZE])) };
  const [chosen = kernel] = kernel.candidates?.(values) ?? [];
  const tile = chosen.variant === undefined ? "" : `, tile ${chosen.variant}`;
  return `// ${kernel.name}: ${variant}${tile}.\n\n${chosen.wgsl}`;
}

describe("the finished text", () => {
  const files = texts.map((text) => ({ file: `${text.kernel.name}${text.suffix ?? ""}.wgsl`, text }));

  it.each(files)("is that of $file", async ({ file, text }) => {
    await expect(textOf(text)).toMatchFileSnapshot(`${FOLDER}${file}`);
  });

  it("is kept of these kernels and no others", () => {
    expect(readdirSync(FOLDER).sort()).toEqual(files.map(({ file }) => file).sort());
  });
});
