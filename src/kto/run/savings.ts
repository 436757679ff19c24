/**
 * What would make a run smaller: changes of its options, each planned on a device that only counts. The order is that
 * in which they are worth trying: the first cost nothing but time. Of a run that the adapter cannot hold they go as far
 * as it takes to fit, and where none of them is enough, the first of them are planned together.
 */
import type { BatchExample } from "../method/batch.ts";
import { momentFormatOf } from "../options/training.ts";
import { type Allocate, ofSize, type Planned, plannedBytes } from "./fitting.ts";
import { type Method, type RunInputs, ranksOf } from "./inputs.ts";

/** A change of options, as they are written, and the device bytes that the run then takes less. */
export interface Saving {
  readonly change: string;
  readonly bytes: number;
  /** Whether the adapter holds the run with this change alone. */
  readonly fits: boolean;
}

export interface Savings {
  readonly each: readonly Saving[];
  /** Changes with which a run fits that none of them alone makes fit, and all its device bytes then. */
  readonly together?: { readonly changes: readonly string[]; readonly bytes: number };
}

/** A run as it is planned. */
interface Sketch {
  readonly inputs: RunInputs;
  readonly method: Method;
  readonly inFourBits: boolean;
}

/** Another sketch of the run, and the options that make it so; undefined where they cannot be changed so far. */
type Change = (run: Sketch) => { readonly change: string; readonly run: Sketch } | undefined;

/** Changes that save memory; those that save nothing are left out. */
export async function savings(inputs: RunInputs, method: Method, allocate: Allocate): Promise<Savings> {
  const count = async (run: Sketch): Promise<Planned | undefined> => {
    const quantization = run.inFourBits ? ({ ...run.inputs.policy.quantization, format: "nf4" } as const) : undefined;
    return await plannedBytes(run.inputs, run.method, allocate, quantization);
  };
  const start: Sketch = { inputs, method, inFourBits: false };
  const now = await count(start);
  if (now === undefined) return { each: [] };
  const each: Saving[] = [];
  const useful: (readonly Change[])[] = [];
  for (const further of CHANGES) {
    const found = await farEnough(start, now, further, count);
    if (found === undefined || found.bytes >= now.bytes) continue;
    each.push({ change: found.change, bytes: now.bytes - found.bytes, fits: found.fits });
    useful.push(further);
  }
  if (now.fits || each.some(({ fits }) => fits)) return { each };
  const changes: string[] = [];
  let run = start;
  for (const further of useful) {
    const found = await farEnough(run, now, further, count);
    if (found === undefined) continue;
    changes.push(found.change);
    if (found.fits) return { each, together: { changes, bytes: found.bytes } };
    run = found.run;
  }
  return { each };
}

/** The first of changes that go further and further; of a run that does not fit the first with which it does, or the last. */
async function farEnough(
  start: Sketch,
  now: Planned,
  further: readonly Change[],
  count: (run: Sketch) => Promise<Planned | undefined>,
) {
  let last: ({ readonly change: string; readonly run: Sketch } & Planned) | undefined;
  for (const change of further) {
    const changed = change(start);
    const planned = changed && (await count(changed.run));
    if (changed === undefined || planned === undefined) continue;
    last = { ...changed, ...planned };
    if (now.fits || last.fits) break;
  }
  return last;
}

const having = (run: Sketch, options: Partial<Method["options"]>): Sketch => ({
  ...run,
  method: { ...run.method, options: { ...run.method.options, ...options } },
});

/** How many halves a number may be of in a run that does not fit. */
const HALVINGS = [2, 4, 8, 16, 32, 64];

/** In the order in which they are worth trying; several at one place go further and further. */
const CHANGES: readonly (readonly Change[])[] = [
  [
    (run) =>
      run.method.options.gradient_checkpointing
        ? undefined
        : { change: "gradient_checkpointing true", run: having(run, { gradient_checkpointing: true }) },
  ],
  [
    (run) => {
      const { adapter, quantizedFormats, quantization } = run.inputs.policy;
      if (adapter === undefined || quantizedFormats.includes("nf4")) return undefined;
      const inPlace = quantization.format === "int8" ? "load_in_8bit false, " : "";
      return { change: `${inPlace}load_in_4bit true`, run: { ...run, inFourBits: true } };
    },
  ],
  HALVINGS.map((parts) => (run) => smallerMicrobatch(run, parts)),
  [
    (run) => {
      const { shard_optimizer: isSharded, sync_every: every } = run.method.options;
      if (ranksOf(run.inputs).size === 1 || isSharded || every !== undefined) return undefined;
      return { change: "shard_optimizer true", run: having(run, { shard_optimizer: true }) };
    },
  ],
  [
    (run) =>
      momentFormatOf(run.method.options) === "f32"
        ? { change: "optim adamw_8bit", run: having(run, { optim: "adamw_8bit" }) }
        : undefined,
  ],
  [
    (run) => {
      const { name, caching, reference } = run.method;
      if (name !== "kto" || caching !== undefined || ["uniform", "none"].includes(`${reference}`)) return undefined;
      const cached = { reference: "base", caching: { recompute: false, freeReference: true } } as const;
      return { change: "reference cached", run: { ...run, method: { ...run.method, ...cached } } };
    },
  ],
  HALVINGS.map((parts) => (run) => shorterRows(run, parts)),
];

function smallerMicrobatch(run: Sketch, parts: number) {
  const { per_device_train_batch_size: size, gradient_accumulation_steps: microbatches } = run.method.options;
  const smaller = Math.ceil(size / parts);
  // As many as the change before this one.
  if (smaller === Math.ceil((2 * size) / parts)) return undefined;
  const more = microbatches * Math.ceil(size / smaller);
  const { method, ...rest } = having(run, { gradient_accumulation_steps: more });
  return {
    change: `per_device_train_batch_size ${smaller}, gradient_accumulation_steps ${more}`,
    run: { ...rest, method: ofSize(method, smaller) },
  };
}

function shorterRows(run: Sketch, parts: number) {
  const { examples, evalExamples } = run.inputs;
  const longest = examples.reduce((most, row) => Math.max(most, lengthOf(row)), 0);
  const length = Math.ceil(Math.min(run.method.options.max_length, longest) / parts);
  const [rows, evaluated] = [cut(examples, length), cut(evalExamples ?? [], length)];
  if (rows.length < examples.length || evaluated.length < (evalExamples?.length ?? 0)) return undefined;
  const inputs = { ...run.inputs, examples: rows, ...(evalExamples ? { evalExamples: evaluated } : {}) };
  return { change: `max_length ${length}`, run: having({ ...run, inputs }, { max_length: length }) };
}

const lengthOf = ({ promptIds, completionIds }: BatchExample) => promptIds.length + completionIds.length;

/** Rows whose completions end at this length; those whose prompts leave nothing are gone. */
function cut(examples: readonly BatchExample[], length: number): BatchExample[] {
  return examples.flatMap((row) => {
    const left = length - row.promptIds.length;
    return left < 1 ? [] : [{ ...row, completionIds: Array.from(row.completionIds).slice(0, left) }];
  });
}
