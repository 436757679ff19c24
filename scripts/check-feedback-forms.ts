/**
 * Shows that one set of feedback in several forms of file is one set to the model: the rows and a digest of all token
 * ids of each file, and with --losses the losses of three training steps.
 *
 *     npx tsx scripts/check-feedback-forms.ts <model folder> <folder of feedback files> [--losses]
 */
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { main } from "../src/cli/program.ts";
import { loadChatTemplate } from "../src/engine/chat-template.ts";
import { readModelConfig } from "../src/engine/model/folder.ts";
import { loadTokenizer } from "../src/engine/tokenizer.ts";
import { errorMessage } from "../src/errors.ts";
import { readFeedback } from "../src/kto/data/read.ts";
import { feedbackEndings } from "../src/kto/data/records.ts";
import { tokenizeRows } from "../src/kto/data/tokenize.ts";

const [model, folder, ...flags] = process.argv.slice(2);
if (model === undefined || folder === undefined) {
  process.stderr.write("usage: check-feedback-forms <model folder> <folder of feedback files> [--losses]\n");
  process.exitCode = 2;
} else {
  const tokenizer = await loadTokenizer(model);
  const chatTemplate = await loadChatTemplate(model);
  const config = await readModelConfig(model);
  for (const file of (await readdir(folder)).sort()) {
    if (!feedbackEndings.some((ending) => file.endsWith(`.${ending}`))) continue;
    const path = join(folder, file);
    try {
      const rows = await readFeedback(path);
      const { examples } = tokenizeRows(rows, {
        tokenizer,
        ...(chatTemplate ? { chatTemplate } : {}),
        vocabSize: config.vocabSize,
        contextLength: config.contextLength,
      });
      const digest = createHash("sha256");
      for (const { promptIds, completionIds, label } of examples) {
        digest.update(JSON.stringify([[...promptIds], [...completionIds], label]));
      }
      const losses = flags.includes("--losses") ? `  losses ${(await lossesOf(model, path)).join(" ")}` : "";
      process.stdout.write(
        `${file}  rows ${rows.length}  kept ${examples.length}  ids ${digest.digest("hex")}${losses}\n`,
      );
    } catch (error) {
      process.stdout.write(`${file}  ${errorMessage(error)}\n`);
    }
  }
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
