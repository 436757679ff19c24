/**
 * The reference of a run: the model whose log-probs the policy's are compared with, held beside the policy or asked
 * once before the run. By default it is the policy as it starts; a run that is resumed starts as the first run did,
 * since the checkpoint is put into the policy after the reference was taken.
 */
import type { Arena } from "../../engine/gpu/arena.ts";
import { byteLength } from "../../engine/gpu/tensor.ts";
import { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { EvaluationPlan } from "../evaluation/evaluation-plan.ts";
import { arenaDigest, ReferenceLogProbs } from "../method/reference-log-probs.ts";
import type { RunPlan } from "../method/run-plan.ts";
import type { UpdateReference } from "../method/update-options.ts";
import { precisionOf } from "../options/training.ts";
import { evaluatedRows, type Method, type RunInputs } from "./inputs.ts";

/** The log-probs of a cached reference. */
export interface CachedReference {
  readonly updates: ReferenceLogProbs;
  /** undefined for a run that does not evaluate. */
  readonly evaluation: ReferenceLogProbs | undefined;
}

/**
 * Computes the log-probs of a cached reference, or reads them from the cache, before the policy changes and before
 * anything of the run is allocated.
 *
 * @param compute false for zeros in place of what the cache does not hold
 * @returns undefined where the reference is not cached
 * @throws NumericError where the reference gives numbers that are not finite
 */
export async function cachedReference(
  { policy, evalExamples, onWork, ranks }: RunInputs,
  method: Method,
  plan: RunPlan,
  compute: boolean,
): Promise<CachedReference | undefined> {
  const { options, reference, caching } = method;
  if (caching === undefined) return undefined;
  const model = reference instanceof Model ? reference : reference === "base" ? policy.base : policy;
  const onProgress = (done: number, total: number) => onWork?.({ work: "reference", done, total });
  const common = { recompute: caching.recompute, precision: precisionOf(options), compute, onProgress, ranks };
  const rows = evaluatedRows(evalExamples, options);
  // The smaller one comes first, so that rows which are refused are refused soon.
  const evaluation = rows
    ? await ReferenceLogProbs.of(
        model,
        new EvaluationPlan(rows, plan.batchOptions, options.per_device_eval_batch_size),
        { ...common, stepNames: ["evaluation microbatch", "evaluation microbatches"] },
      )
    : undefined;
  // Ranks that update by themselves have plans of their own.
  const together = plan.isLocal ? { ranks: undefined } : {};
  const stepNames = ["update", "updates"] as const;
  const updates = await ReferenceLogProbs.of(model, plan, { ...common, ...together, stepNames });
  if (reference instanceof Model && caching.freeReference) {
    reference.adapter?.free();
    if (reference.weights !== policy.weights) reference.free();
  }
  return { updates, evaluation };
}

/** Where an update finds the reference's log-probs, and what gives back the memory that was taken for it. */
export function liveReference(policy: Model, method: Method): { source: UpdateReference; free: () => void } {
  const { reference } = method;
  const free = () => undefined;
  if (method.caching) return { source: "cached", free };
  if (reference === "base") return { source: policy.base, free };
  if (reference !== "start") return { source: reference, free };
  if (policy.adapter) {
    const adapter = policy.adapter.frozenCopy();
    return { source: policy.base.withAdapter(adapter), free: () => adapter.free() };
  }
  const copy = Model.copyOf(policy, "reference weights");
  return { source: copy, free: () => copy.free() };
}

/**
 * SHA-256 of the models that a run starts with and no checkpoint holds. By them a resumed run checks that it was given
 * the same ones.
 */
export interface StartDigests {
  /** Digest of the adapter that is the reference; undefined where the reference is no adapter. */
  readonly referenceAdapter?: string | undefined;
  /** Digest of the weights below the trained adapter, or of the starting weights where they are the reference. */
  readonly startWeights?: string | undefined;
  /** Digest of the reference model where it is given apart from the policy. */
  readonly referenceWeights?: string | undefined;
}

/** The digests of the models that a run starts with; none where the device only counts memory. */
export async function startDigests(policy: Model, { reference }: Method): Promise<StartDigests> {
  const { adapter, device, weights } = policy;
  if (device.counts) return {};
  const own = reference instanceof Model ? reference : undefined;
  const starts = adapter !== undefined || reference === "start" || reference === "base";
  return {
    referenceAdapter: adapter && reference === "start" ? await arenaDigest(adapter.weights) : undefined,
    startWeights: starts ? await sampleDigest(weights) : undefined,
    referenceWeights: own && (await sampleDigest(own.weights, own.adapter?.weights)),
  };
}

/** Words of a parameter that are looked at: training changes all of them, and all of a large model would take long. */
const SAMPLE_WORDS = 256;

/** SHA-256 of the first numbers of every parameter. */
export async function sampleDigest(...arenas: readonly (Arena | undefined)[]): Promise<string> {
  const hash = platform.sha256();
  for (const arena of arenas) {
    for (const { name } of arena?.layout.specs ?? []) {
      const window = arena?.window(name);
      if (arena === undefined || window === undefined) continue;
      const words = Math.min(SAMPLE_WORDS, Math.floor(byteLength(window) / 4));
      hash.update(new Uint8Array(await arena.device.downloadBytes({ ...window, dtype: "u32", shape: [words] })));
    }
  }
  return hash.digest();
}
