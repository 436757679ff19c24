/** Rows that are encoded in threads: the same ids in the same order, and the same sentence where a row is refused. */
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it, test, vi } from "vitest";
import { parseExactJson } from "../../../src/engine/files/exact-json.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { loadChatTemplate } from "../../../src/engine/text/chat-template.ts";
import { loadTokenizer } from "../../../src/engine/text/tokenizer.ts";
import { DatasetError } from "../../../src/errors.ts";
import type { EncodedRow } from "../../../src/kto/data/encode.ts";
import { threadsFor } from "../../../src/kto/data/encode-threads.ts";
import { encodeWithCache, surveyRows } from "../../../src/kto/data/token-cache.ts";
import type { ChatRow, FeedbackRow, TextRow } from "../../../src/kto/data/types.ts";
import { freshPath, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
let model = "";
beforeAll(() => {
  model = freshPath(folder, "model");
  cpSync("test/fixtures/data/stories260K", model, { recursive: true });
  // Writes numbers and keys as they stand in the row, and refuses one word.
  writeFileSync(
    join(model, "chat_template.jinja"),
    "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no such word') }}{% endif %}{{ m.content }}|{{ (m.extra or 0) | tojson }}{{ mood }}\n{% endfor %}{{ tools | tojson }}",
  );
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

const source = (i: number) => ({ file: "rows.jsonl", line: i + 1 });
const texts: TextRow[] = Array.from({ length: 1030 }, (_, i) => ({
  ...{ prompt: `Once upon a time ${i >> 1}`, completion: i % 7 === 0 ? "" : ` cat ${i}`, label: i % 2 === 0 },
  source: source(i),
}));
const extra = '{"b": 1.0, "2": 12345678901234567890, "1": [1e3], "a": null}';
const chats: ChatRow[] = Array.from({ length: 1020 }, (_, i) => ({
  promptMessages: [{ role: "user", content: `Hi ${i >> 1} 🐈`, extra: parseExactJson(extra) }],
  completionMessages: [{ role: "assistant", content: i === 234 ? "" : i === 900 ? "bad" : `Yo ${i}` }],
  ...(i % 3 === 0 ? { tools: [{ name: "t", at: i }], templateOptions: { mood: `m${i}` } } : {}),
  label: true,
  source: source(i),
}));

/** What comes out, up to the sentence that refuses a row. */
async function encode(rows: readonly FeedbackRow[], threads: number) {
  vi.stubEnv("KTO_CACHE", freshPath(folder, "cache"));
  const chatTemplate = await loadChatTemplate(model);
  const options = { tokenizer: await loadTokenizer(model), chatTemplate, templateOptions: { mood: "calm" } };
  const found: unknown[] = [];
  const use = ({ source: { line } }: FeedbackRow, { promptIds, completionIds, ...rest }: EncodedRow) =>
    void found.push({ line, promptIds: plain(promptIds), completionIds: plain(completionIds), ...rest });
  try {
    await encodeWithCache(rows, await surveyRows(rows), { ...options, modelFolder: model, threads }, use);
  } catch (error) {
    if (!(error instanceof DatasetError)) throw error;
    found.push(error.message);
  }
  return found;
}

const plain = (ids: ArrayLike<number>) => Array.from(ids);

describe("dataset_num_proc", () => {
  test.each<[string, readonly FeedbackRow[], unknown]>([
    ["text", texts, expect.objectContaining({ line: texts.length })],
    [
      "chats with exact numbers, one of which is refused",
      chats,
      expect.stringMatching(/^rows\.jsonl:901: .*no such word/),
    ],
  ])("gives the same ids in the same order for %s", async (_, rows, last) => {
    vi.spyOn(platform, "processors").mockReturnValue(2);
    const started = vi.spyOn(platform, "startThread");
    const threaded = await encode(rows, 3);
    expect(started).toHaveBeenCalledTimes(2);
    const alone = await encode(rows, 1);
    expect(started).toHaveBeenCalledTimes(2);
    expect(alone.at(-1)).toEqual(last);
    expect(threaded).toEqual(alone);
  });

  it("encodes here what a thread cannot", async () => {
    vi.spyOn(platform, "processors").mockReturnValue(2);
    vi.spyOn(platform, "startThread").mockResolvedValue({
      ask: async () => Promise.reject(new Error("ended")),
      end: async () => undefined,
      heapBytes: 0,
    });
    const rows = texts;
    expect(await encode(rows, 2)).toEqual(await encode(rows, 1));
  });

  test.each([
    [200_000, 16, 4, 4],
    [200_000, 2, 4, 2],
    [1200, 16, 4, 2],
    [100, 16, 4, 1],
  ])("%d rows, %d asked for, %d cores: %d threads", (rows, asked, cores, threads) => {
    vi.spyOn(platform, "processors").mockReturnValue(cores);
    expect(threadsFor(rows, asked)).toBe(threads);
  });
});
