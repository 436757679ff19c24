/**
 * Made comparisons.jsonl: `npx tsx examples/imbalance/make-comparisons.ts pandalm-testset-v1.json`. Keeps what fits
 * the study's length, and of each comparison what the study reads.
 */
import { readFile, writeFile } from "node:fs/promises";
import { loadTokenizer } from "../../src/index.ts";
import { modelFolder } from "../quickstart/stories.ts";
import { type Comparison, comparisonsFile, maxLength, promptOf } from "./comparisons.ts";

interface PandaComparison extends Pick<Comparison, "idx" | "instruction" | "input"> {
  readonly response1: string | boolean;
  readonly response2: string | boolean;
  readonly annotator1: number;
  readonly annotator2: number;
  readonly annotator3: number;
}

const [file = "pandalm-testset-v1.json"] = process.argv.slice(2);
const tokenizer = await loadTokenizer(modelFolder);
const all = JSON.parse(await readFile(file, "utf8")) as PandaComparison[];
/** One token for the end of the text. */
const fits = (text: string) => tokenizer.encode(text, { addSpecialTokens: true }).length + 1 <= maxLength;
const kept = all
  .map(
    (entry): Comparison => ({
      ...{ idx: entry.idx, instruction: entry.instruction, input: entry.input },
      // Where a model answered with the one word, the file has true and false.
      responses: [String(entry.response1), String(entry.response2)],
      votes: [entry.annotator1, entry.annotator2, entry.annotator3],
    }),
  )
  .filter((comparison) => comparison.responses.every((response) => fits(promptOf(comparison) + response)));
await writeFile(comparisonsFile, kept.map((comparison) => `${JSON.stringify(comparison)}\n`).join(""));
process.stderr.write(`${kept.length} of ${all.length} comparisons fit ${maxLength} tokens.\n`);
