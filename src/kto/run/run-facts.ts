/** run.json: what a run was started with. It is for people who look at runs; a run that is resumed does not read it. */
import * as z from "zod";

export const RUN_FILE = "run.json";

/** Names as in docs/dashboard.md. */
export const runFactsSchema = z.object({
  /** When it was started or, of a run that was resumed, last resumed; ISO 8601. */
  started: z.string(),
  method: z.enum(["kto", "sft"]),
  program: z.string(),
  adapter: z.string(),
  model: z.string(),
  /** Parameters of the model, and those that are trained. */
  parameters: z.number(),
  trained: z.number(),
  data: z.string(),
  updates: z.number(),
  updates_per_epoch: z.number(),
  /** All options as the run understood them, defaults included; secrets are left out. */
  options: z.record(z.string(), z.unknown()),
});

export type RunFacts = Readonly<z.output<typeof runFactsSchema>>;
