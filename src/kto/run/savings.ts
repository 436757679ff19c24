/**
 * What would make a run smaller: changes of its options, each planned on a device that only counts. The order is that
 * in which they are worth trying: the first cost nothing but time.
 */
import type { BatchExample } from "../method/batch.ts";
import { momentFormatOf } from "../options/training.ts";
import { type Allocate, ofSize, plannedBytes } from "./fitting.ts";
import { type Method, type RunInputs, ranksOf } from "./inputs.ts";

/** A change of options, as they are written, and the device bytes that the run then takes less. */
export interface Saving {
  readonly change: string;
  readonly bytes: number;
}

interface Change {
  readonly change: string;
  readonly inputs?: RunInputs;
  readonly method?: Method;
  readonly inFourBits?: boolean;
}

/** Changes that save memory, each alone, with what it saves; those that save nothing are left out. */
export async function savings(inputs: RunInputs, method: Method, allocate: Allocate): Promise<Saving[]> {
  const now = await plannedBytes(inputs, method, allocate);
  if (now === undefined) return [];
  const found: Saving[] = [];
  for (const { change, inFourBits, ...changed } of changesOf(inputs, method)) {
    const quantization = inFourBits ? ({ format: "nf4" } as const) : undefined;
    const then = await plannedBytes(changed.inputs ?? inputs, changed.method ?? method, allocate, quantization);
    if (then !== undefined && then < now) found.push({ change, bytes: now - then });
  }
  return found;
}

function changesOf(inputs: RunInputs, method: Method): Change[] {
  const { policy, examples, evalExamples = [] } = inputs;
  const { options } = method;
  const having = (changes: Partial<typeof options>): Method => ({ ...method, options: { ...options, ...changes } });
  const changes: Change[] = [];
  if (!options.gradient_checkpointing) {
    changes.push({
      change: "gradient_checkpointing true",
      method: having({ gradient_checkpointing: true }),
    });
  }
  if (policy.adapter && policy.quantizedFormats.length === 0) {
    changes.push({ change: "load_in_4bit true", inFourBits: true });
  }
  const { per_device_train_batch_size: size, gradient_accumulation_steps: microbatches } = options;
  if (size > 1) {
    const smaller = Math.ceil(size / 2);
    const more = microbatches * Math.ceil(size / smaller);
    changes.push({
      change: `per_device_train_batch_size ${smaller}, gradient_accumulation_steps ${more}`,
      method: ofSize(having({ gradient_accumulation_steps: more }), smaller),
    });
  }
  if (ranksOf(inputs).size > 1 && !options.shard_optimizer && options.sync_every === undefined) {
    changes.push({ change: "shard_optimizer true", method: having({ shard_optimizer: true }) });
  }
  if (momentFormatOf(options) === "f32") {
    changes.push({ change: "optim adamw_8bit", method: having({ optim: "adamw_8bit" }) });
  }
  if (method.name === "kto" && method.caching === undefined && !["uniform", "none"].includes(`${method.reference}`)) {
    changes.push({
      change: "reference cached",
      method: { ...method, reference: "base", caching: { recompute: false, freeReference: true } },
    });
  }
  const longest = examples.reduce((most, row) => Math.max(most, lengthOf(row)), 0);
  const shorter = Math.ceil(Math.min(options.max_length, longest) / 2);
  const [rows, evaluated] = [cut(examples, shorter), cut(evalExamples, shorter)];
  if (rows.length === examples.length && evaluated.length === evalExamples.length) {
    const given = inputs.evalExamples ? { evalExamples: evaluated } : {};
    changes.push({
      change: `max_length ${shorter}`,
      inputs: { ...inputs, examples: rows, ...given },
      method: having({ max_length: shorter }),
    });
  }
  return changes;
}

const lengthOf = ({ promptIds, completionIds }: BatchExample) => promptIds.length + completionIds.length;

/** Rows whose completions end at this length; those whose prompts leave nothing are gone. */
function cut(examples: readonly BatchExample[], length: number): BatchExample[] {
  return examples.flatMap((row) => {
    const left = length - row.promptIds.length;
    return left < 1 ? [] : [{ ...row, completionIds: Array.from(row.completionIds).slice(0, left) }];
  });
}
