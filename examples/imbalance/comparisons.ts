/**
 * The comparisons that the imbalance study trains on: PandaLM's test set, judged by three people each. Reading them and
 * making rows of feedback of their majority vote; what a seed does with the rows is `design.ts`'s.
 */
import { readFile } from "node:fs/promises";
import type { TextRow } from "../../src/index.ts";

export const comparisonsFile: string = `${import.meta.dirname}/comparisons.jsonl`;

/** Longest prompt + answer in tokens of stories260K, whose context is 512. */
export const maxLength = 256;

/** Two answers to one instruction, as they lie in comparisons.jsonl. */
export interface Comparison {
  /** In PandaLM's file. */
  readonly idx: number;
  readonly instruction: string;
  /** Empty for most. */
  readonly input: string;
  readonly responses: readonly [string, string];
  /** The three annotators' votes: 1 or 2 for the better answer, 0 for a tie. */
  readonly votes: readonly number[];
}

export async function readComparisons(): Promise<Comparison[]> {
  const lines = (await readFile(comparisonsFile, "utf8")).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Comparison);
}

/** The vote of at least two of three annotators; undefined if all three differ. */
export function majority(votes: readonly number[]): number | undefined {
  return votes.find((vote, at) => votes.indexOf(vote) < at);
}

/** Instruction and input on lines of their own: this small model knows no template of instructions. */
export function promptOf({ instruction, input }: Pick<Comparison, "instruction" | "input">): string {
  return input === "" ? `${instruction}\n` : `${instruction}\n${input}\n`;
}

export interface Judged {
  /** Two for each comparison: the preferred answer, then the other. */
  readonly rows: TextRow[];
  /** Left out because the majority sees a tie, or there is none. */
  readonly ties: number;
  /** Left out because an answer is empty or both are the same. */
  readonly unfit: number;
}

/** Rows of the majority's preferences: its answer desirable, the other one undesirable. */
export function judge(comparisons: readonly Comparison[]): Judged {
  const rows: TextRow[] = [];
  let [ties, unfit] = [0, 0];
  for (const [at, comparison] of comparisons.entries()) {
    const vote = majority(comparison.votes);
    const [first, second] = comparison.responses;
    if (first.trim() === "" || second.trim() === "" || first === second) unfit++;
    else if (vote !== 1 && vote !== 2) ties++;
    else {
      const prompt = promptOf(comparison);
      const facts = { source: { file: comparisonsFile, line: at + 1 }, pair: rows.length / 2 };
      const [better, worse] = vote === 1 ? [first, second] : [second, first];
      rows.push({ prompt, completion: better, label: true, ...facts });
      rows.push({ prompt, completion: worse, label: false, ...facts });
    }
  }
  return { rows, ties, unfit };
}
