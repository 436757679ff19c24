/**
 * Shows that one set of feedback in several forms of file is one set to the model: the rows of each file, a digest of
 * all its token ids and the losses of three training steps. Exits 1 unless all of them agree.
 *
 *     npx tsx scripts/check-feedback-forms.ts <model folder> <file> <file> ...
 */
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { main } from "../src/cli/main.ts";
import { readModelConfig } from "../src/engine/model/config/folder.ts";
import { loadChatTemplate } from "../src/engine/text/chat-template.ts";
import { loadTokenizer } from "../src/engine/text/tokenizer.ts";
import { readFeedback } from "../src/kto/data/read.ts";
import { tokenizeRows } from "../src/kto/data/tokenize.ts";

const [model, ...files] = process.argv.slice(2);
if (model === undefined || files.length < 2) {
  process.stderr.write("usage: check-feedback-forms <model folder> <file> <file> ...\n");
  process.exitCode = 2;
} else {
  const tokenizer = await loadTokenizer(model);
  const chatTemplate = await loadChatTemplate(model);
  const { vocabSize, contextLength } = await readModelConfig(model);
  const found = new Set<string>();
  for (const file of files) {
    const rows = await readFeedback(file);
    const options = { tokenizer, vocabSize, contextLength, ...(chatTemplate ? { chatTemplate } : {}) };
    const { examples } = tokenizeRows(rows, options);
    const digest = createHash("sha256");
    for (const { promptIds, completionIds, label } of examples) {
      digest.update(JSON.stringify([[...promptIds], [...completionIds], label]));
    }
    const losses = await lossesOf(model, file);
    const result = `rows ${rows.length}  kept ${examples.length}  ids ${digest.digest("hex")}  losses ${losses.join(" ")}`;
    found.add(result);
    process.stdout.write(`${basename(file)}  ${result}\n`);
  }
  process.stdout.write(found.size === 1 ? "all agree\n" : `${found.size} different sets\n`);
  process.exitCode = found.size === 1 ? 0 : 1;
}

/** The losses of three updates of four rows. */
async function lossesOf(model: string, path: string): Promise<number[]> {
  const output = await mkdtemp(join(tmpdir(), "kto-forms-"));
  try {
    const options = ["--max_steps=3", "--logging_steps=1", "--per_device_train_batch_size=4", "--log_level=error"];
    const words = ["train", "--model", model, "--dataset", path, "--output_dir", output, ...options];
    const silent = { write: () => true };
    const code = await main(words, { stdout: silent, stderr: process.stderr });
    if (code !== 0) throw new Error(`training ended with exit code ${code}`);
    const lines = (await readFile(join(output, "metrics.jsonl"), "utf8")).trim().split("\n");
    return lines.map((line) => (JSON.parse(line) as { loss: number }).loss);
  } finally {
    await rm(output, { recursive: true, force: true });
  }
}
