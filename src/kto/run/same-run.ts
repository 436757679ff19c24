/**
 * Whether the ranks of a run are about to compute the same thing: they compare digests of the program, the options, the
 * rows and the models before the first update, since nothing later would notice that they differ. What is measured on
 * rows without a run, `kto eval` and `kto logps`, compares those.
 */
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { firstDifference } from "../../engine/ranks/same.ts";
import { gatherJson } from "../../engine/ranks/sums.ts";
import { RankError } from "../../errors.ts";
import type { BatchExample } from "../method/batch.ts";
import { evaluatedRows, type Method, type RunInputs, ranksOf } from "./inputs.ts";
import { type StartDigests, sampleDigest } from "./reference.ts";
import { digestOfExamples, digestOfIds, kernelDigest } from "./state.ts";

/** What is compared, by what a message calls it. */
type Facts = Readonly<Record<string, string>>;

/** @throws RankError that names the first rank that differs from rank 0, and in what; on every rank the same */
export async function checkSameRun(inputs: RunInputs, method: Method, digests: StartDigests): Promise<void> {
  const ranks = ranksOf(inputs);
  if (ranks.size === 1) return;
  const rows = evaluatedRows(inputs.evalExamples, method.options);
  const { options, objective, caching, sync, referencePointScope } = method;
  const facts: Facts = {
    "the kernels of kto-webgpu (another version)": kernelDigest(),
    ...Object.fromEntries(Object.entries(options).map(([name, value]) => [`option "${name}"`, JSON.stringify(value)])),
    "the method": JSON.stringify([method.name, objective, caching, sync, referencePointScope]),
    "the rows to train on": digestOfExamples(inputs.examples),
    "the rows to evaluate on": rows ? digestOfExamples(rows) : "none",
    "the weights of the model": await sampleDigest(inputs.policy.weights),
    "the weights of the adapter": inputs.policy.adapter ? await sampleDigest(inputs.policy.adapter.weights) : "none",
    "the weights of the reference": digests.referenceWeights ?? "none",
  };
  await compare(ranks, facts);
}

/**
 * Whether all ranks are about to measure the same rows, each its part of them: copies of a file may differ, and then
 * ranks would mix their numbers, or wait for each other for ever.
 *
 * @throws RankError that names the first rank that has others than rank 0; on every rank the same
 */
export async function checkSameRows(ranks: Communicator, examples: readonly BatchExample[]): Promise<void> {
  if (ranks.size > 1) await compare(ranks, { "the rows to measure": digestOfExamples(examples) });
}

/**
 * Compares the prompts of all ranks, of which each rank continues some.
 *
 * @param prompts token ids
 * @throws RankError that names the first rank that has others than rank 0; on every rank the same
 */
export async function checkSamePrompts(ranks: Communicator, prompts: readonly ArrayLike<number>[]): Promise<void> {
  if (ranks.size > 1) await compare(ranks, { "the prompts": digestOfIds(prompts) });
}

async function compare(ranks: Communicator, facts: Facts): Promise<void> {
  const difference = firstDifference(await gatherJson(ranks, facts));
  if (difference === undefined) return;
  const { rank, name, theirs, first } = difference;
  const values = name.startsWith("option") ? ` (${theirs}, and ${first} there)` : "";
  throw new RankError(
    `rank ${rank} differs from rank 0 in ${name}${values}: give every rank the same program, options and files.`,
  );
}
