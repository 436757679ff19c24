/**
 * A line of rows.jsonl: the text of a row of the feedback that stood out among the examples of a logged update. Which
 * rows stand out is decided here, from the lines of examples.jsonl alone; who reads the texts is the caller's.
 */
import * as z from "zod";
import type { ExampleLine } from "./example-line.ts";

export const ROWS_FILE = "rows.jsonl";

/** Names as in docs/dashboard.md. */
export const rowLineSchema = z.object({
  /** The update that it stood out in first. */
  step: z.number().int().min(0),
  /** Its row in the feedback, counted from 0. */
  index: z.number().int().min(0),
  label: z.boolean(),
  /** The end of the prompt, and the beginning of the completion. */
  prompt: z.string(),
  completion: z.string(),
});

export type RowLine = Readonly<z.output<typeof rowLineSchema>>;

/** Rows of a class that stand out in an update by the highest rewards, by the lowest ones, and by their movement. */
const MOST_OF_A_KIND = 3;

/**
 * Finds rows that stand out while it is given a run's logged updates one after another: those with the highest and the
 * lowest rewards of their class, and those whose reward has moved farthest since it was logged first. A row is named once, so that the texts of a run
 * are at most 18 for a line of examples.jsonl, which are few.
 */
export class StandingOut {
  readonly #first = new Map<number, number>();
  readonly #named: Set<number>;

  /** @param named rows that are not to be named again */
  constructor(named: Iterable<number> = []) {
    this.#named = new Set(named);
  }

  /** @returns indices of rows that stand out in this update and were not named before */
  take({ index, label, log_ratio }: ExampleLine): number[] {
    const rows = index.flatMap((row, at) => {
      const reward = log_ratio[at];
      if (reward === null || reward === undefined) return [];
      const first = this.#first.get(row);
      if (first === undefined) this.#first.set(row, reward);
      return [{ row, reward, label: label[at] === true, moved: Math.abs(reward - (first ?? reward)) }];
    });
    const found = [true, false].flatMap((up) => {
      const ofClass = rows.filter((one) => one.label === up);
      const byReward = [...ofClass].sort((a, b) => b.reward - a.reward);
      const byMove = ofClass.filter(({ moved }) => moved > 0).sort((a, b) => b.moved - a.moved);
      return [
        ...byReward.slice(0, MOST_OF_A_KIND),
        ...byReward.slice(-MOST_OF_A_KIND),
        ...byMove.slice(0, MOST_OF_A_KIND),
      ];
    });
    const fresh = [...new Set(found.map(({ row }) => row))].filter((row) => !this.#named.has(row));
    for (const row of fresh) this.#named.add(row);
    return fresh;
  }
}
