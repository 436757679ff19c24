/**
 * Feedback larger than what is held of it: 25 MB of text, of which a session keeps token ids and places, and `kto data`
 * fingerprints and lengths.
 */
import { createWriteStream, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeFeedback, readRows } from "../../../src/cli/session/rows.ts";
import { Output } from "../../../src/cli/terminal/output.ts";
import { readModelConfig } from "../../../src/engine/model/config/folder.ts";
import { summarizeRows } from "../../../src/kto/data/summary.ts";
import type { FeedbackRow } from "../../../src/kto/data/types.ts";
import { freshPath, stories, temporaryFolder } from "../../helpers/folders.ts";
import { CapturedStream } from "../../helpers/streams.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;
const folder = temporaryFolder();
const count = 7000;
const textBytes = 3700 * count;
/** Two words each: nearly all of the file is text, and nearly nothing of it ids. */
const model = freshPath(folder, "model");
const file = freshPath(folder, "large.jsonl");

const streams = { stdout: new CapturedStream(), stderr: new CapturedStream() };
const output = new Output(streams, { json: false, log_level: "error" });
const options = {
  dataset_name: file,
  dataset_config: undefined,
  dataset_train_split: "train",
  column_mapping: undefined,
  max_length: 256,
  chat_template_path: undefined,
  chat_template_kwargs: undefined,
  overwrite_cache: false,
  append_eos: true,
  text_as_chat: false,
  dataset_num_proc: 1,
};

beforeAll(async () => {
  vi.stubEnv("KTO_CACHE", join(folder, "cache"));
  mkdirSync(model);
  const tokenizer = {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "WhitespaceSplit" },
    post_processor: null,
    decoder: null,
    model: { type: "WordLevel", vocab: { "<unk>": 0, good: 1, bad: 2 }, unk_token: "<unk>" },
  };
  writeFileSync(join(model, "tokenizer.json"), JSON.stringify(tokenizer));
  const stream = createWriteStream(file);
  for (let i = 0; i < count; i++) {
    const row = { prompt: `${i}${"x".repeat(3600)}`, completion: i % 2 === 0 ? " good" : " bad", label: i % 2 === 0 };
    stream.write(`${JSON.stringify({ ...row, prompt: `${row.prompt} good` })}\n`);
  }
  await new Promise<void>((resolve) => stream.end(resolve));
});
afterAll(() => {
  vi.unstubAllEnvs();
});

/** The same rows; `most` is the largest growth of what is alive while they are gone through. */
function watched(rows: AsyncIterable<FeedbackRow>): AsyncIterable<FeedbackRow> & { readonly most: () => number } {
  const held = () => {
    collectGarbage();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = held();
  let most = 0;
  const look = () => {
    most = Math.max(most, held() - before);
    return most;
  };
  async function* go() {
    let read = 0;
    for await (const row of rows) {
      yield row;
      if (++read % 1000 === 0) look();
    }
    look();
  }
  return { [Symbol.asyncIterator]: go, most: look };
}

describe("25 MB of text", () => {
  it("become token ids, tokenized or from the cache, without being held", async () => {
    const policy = { folder: model, config: await readModelConfig(stories) };
    for (const name of ["tokenized", "cached"]) {
      const rows = watched(await readRows(options, output));
      const { examples, report } = await encodeFeedback(rows, { policy }, options, output);
      expect(rows.most(), name).toBeLessThan(textBytes / 2);
      expect(report).toMatchObject({ rows: count, desirable: count / 2, promptTokens: 2 * count });
      expect(examples.at(-1)).toMatchObject({ promptIds: Uint32Array.of(0, 1), completionIds: Uint32Array.of(2) });
    }
  });

  it("are summed up without being held", async () => {
    const rows = watched(await readRows(options, output));
    const summary = await summarizeRows(rows);
    expect(rows.most()).toBeLessThan(textBytes / 2);
    expect(summary).toMatchObject({ rows: count, distinctPrompts: count, distinctCompletions: 2, repeatedRows: 0 });
  });
});
