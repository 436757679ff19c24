/** A line of events.jsonl: what a run said, with the update after which it said it. */
import * as z from "zod";

export const EVENTS_FILE = "events.jsonl";

/** Names as in docs/dashboard.md. */
export const eventLineSchema = z.object({
  /** Updates done. */
  step: z.number().int().min(0),
  /** ISO 8601. */
  time: z.string(),
  level: z.enum(["info", "warning", "error"]),
  text: z.string(),
});

export type EventLine = Readonly<z.output<typeof eventLineSchema>>;
