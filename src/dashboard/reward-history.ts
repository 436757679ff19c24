/**
 * The rewards that examples.jsonl logs, over the whole run: how they are spread in each class, and which rows have the
 * highest and the lowest ones and moved farthest. Numbers alone; read line by line, bounded in size.
 */
import * as z from "zod";
import type { RewardsAnswer, RowsAnswer, StandingRow } from "./protocol.ts";
import { thinned } from "./series.ts";

/** What is read of a line of examples.jsonl. */
const lineSchema = z.object({
  step: z.number(),
  beta: z.number(),
  index: z.array(z.number()),
  label: z.array(z.boolean()),
  log_ratio: z.array(z.number().nullable()),
});

/** Rewards that are kept at most; a run logs a quarter of that. */
const MOST_REWARDS = 1_000_000;
const COLUMNS = 60;
const BINS = 30;
/** Rows of a kind, and points of the movement of each. */
const MOST_ROWS = 5;
const MOST_POINTS = 60;

interface History {
  readonly label: boolean;
  readonly steps: number[];
  readonly rewards: number[];
}

interface LoggedRewards {
  readonly step: number;
  readonly up: number[];
  readonly down: number[];
}

export class RewardHistory {
  readonly #rows = new Map<number, History>();
  readonly #updates: LoggedRewards[] = [];
  #count = 0;

  /** Adds a line of examples.jsonl; one that is damaged is passed over. */
  add(text: string): void {
    const line = parsed(text);
    if (line === undefined || this.#count >= MOST_REWARDS) return;
    const update: LoggedRewards = { step: line.step, up: [], down: [] };
    for (const [at, index] of line.index.entries()) {
      const [label, ratio] = [line.label[at], line.log_ratio[at]];
      if (label === undefined || ratio === null || ratio === undefined) continue;
      const reward = line.beta * ratio;
      (label ? update.up : update.down).push(reward);
      let row = this.#rows.get(index);
      if (row === undefined) {
        row = { label, steps: [], rewards: [] };
        this.#rows.set(index, row);
      }
      row.steps.push(line.step);
      row.rewards.push(reward);
      this.#count++;
    }
    this.#updates.push(update);
  }

  clear(): void {
    this.#rows.clear();
    this.#updates.length = 0;
    this.#count = 0;
  }

  /** undefined before there is a reward. */
  get spread(): RewardsAnswer | undefined {
    let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const { up, down } of this.#updates) {
      for (const reward of [...up, ...down]) {
        low = Math.min(low, reward);
        high = Math.max(high, reward);
      }
    }
    if (!(low <= high)) return undefined;
    // Before training all rewards are 0: a range without width has one value in its middle.
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const columns = columnsOf(this.#updates);
    const bin = (reward: number) => Math.min(BINS - 1, Math.floor(((reward - low) / (high - low)) * BINS));
    const counted = (rewards: readonly number[]) => {
      const counts = Array.from({ length: BINS }, () => 0);
      for (const reward of rewards) counts[bin(reward)] = (counts[bin(reward)] ?? 0) + 1;
      return counts;
    };
    return {
      ...{ low, high },
      from: columns.map(({ from }) => from),
      to: columns.map(({ to }) => to),
      up: columns.map(({ up }) => counted(up)),
      down: columns.map(({ down }) => counted(down)),
      upMedian: columns.map(({ up }) => median(up)),
      downMedian: columns.map(({ down }) => median(down)),
    };
  }

  /** The rows that stand out, without their texts. */
  get standingOut(): RowsAnswer {
    const last = ({ rewards }: History) => rewards.at(-1) ?? 0;
    const moved = ({ rewards }: History) => Math.abs((rewards.at(-1) ?? 0) - (rewards[0] ?? 0));
    const all = [...this.#rows];
    const best = (rows: typeof all, score: (row: History) => number) =>
      [...rows].sort(([, a], [, b]) => score(b) - score(a)).slice(0, MOST_ROWS);
    const shown = (rows: typeof all) => rows.map(([index, row]) => standing(index, row));
    const ofClass = [true, false].flatMap((label): RowsAnswer["groups"][number][] => {
      const rows = all.filter(([, row]) => row.label === label);
      return [
        { kind: "highest", label, rows: shown(best(rows, last)) },
        { kind: "lowest", label, rows: shown(best(rows, (row) => -last(row))) },
      ];
    });
    const movers = best(
      all.filter(([, row]) => moved(row) > 0),
      moved,
    );
    const groups = [...ofClass, { kind: "moved" as const, rows: shown(movers) }];
    return { rows: all.length, groups: groups.filter(({ rows }) => rows.length > 0) };
  }
}

/** The logged updates, in order, in as many ranges of steps as there are columns. */
function columnsOf(updates: readonly LoggedRewards[]) {
  const sorted = [...updates].sort((a, b) => a.step - b.step);
  const first = sorted[0]?.step ?? 0;
  const width = Math.max(1, ((sorted.at(-1)?.step ?? 0) - first + 1) / COLUMNS);
  const columns: { column: number; from: number; to: number; up: number[]; down: number[] }[] = [];
  for (const { step, up, down } of sorted) {
    const column = Math.floor((step - first) / width);
    const current = columns.at(-1);
    if (current?.column === column) {
      current.to = step;
      current.up = current.up.concat(up);
      current.down = current.down.concat(down);
    } else columns.push({ column, from: step, to: step, up: [...up], down: [...down] });
  }
  return columns;
}

function standing(index: number, { label, steps, rewards }: History): StandingRow {
  return { index, label, rewards: thinned({ steps, values: rewards }, MOST_POINTS) };
}

function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const [below, above] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
  return below === undefined || above === undefined ? null : (below + above) / 2;
}

function parsed(text: string): z.output<typeof lineSchema> | undefined {
  try {
    return lineSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
