/** Token ids kept on disk: the same as without the cache, never stale, and no reason for a run to fail. */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { parseExactJson } from "../../../src/engine/files/exact-json.ts";
import { createChatTemplate } from "../../../src/engine/text/chat-template.ts";
import { loadTokenizer } from "../../../src/engine/text/tokenizer.ts";
import { DatasetError } from "../../../src/errors.ts";
import type { EncodedRow } from "../../../src/kto/data/encode.ts";
import { type CachedEncodeOptions, encodeWithCache, surveyRows } from "../../../src/kto/data/token-cache.ts";
import { storedRows, TokenIdStore } from "../../../src/kto/data/token-ids.ts";
import { ExampleCollector, tokenizeRows } from "../../../src/kto/data/tokenize.ts";
import type { ChatRow, FeedbackRow, TextRow } from "../../../src/kto/data/types.ts";
import { temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const limits = { vocabSize: 512, contextLength: 512 };
const read = /^token ids of \d+ rows? read from /;
const written = /^\d+ rows? tokenized; the ids are kept in /;

let cache = "";
let model = "";
beforeEach(() => {
  cache = mkdtempSync(join(folder, "cache-"));
  model = mkdtempSync(join(folder, "model-"));
  cpSync("test/fixtures/data/stories260K", model, { recursive: true });
  vi.stubEnv("KTO_CACHE", cache);
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.useRealTimers();
});

const source = { file: "rows.jsonl", line: 1 };
const template = (text: string) => createChatTemplate(text, {}, "t.jinja");
const chatTemplate = template("{% for m in messages %}{{ m.content }}\n{% endfor %}{{ mood }}");
const rows: FeedbackRow[] = [
  { prompt: "Once upon", completion: " a time", label: true, source },
  { promptIds: [1, 5], completionIds: [2 ** 33], label: false, source },
  { prompt: "Once upon", completion: "", label: true, source },
  {
    promptMessages: [{ role: "user", content: "Hi" }],
    completionMessages: [{ role: "assistant", content: "Yo" }],
    label: false,
    source,
  },
];

async function run(given: readonly FeedbackRow[] = rows, changes: Partial<CachedEncodeOptions> = {}) {
  const tokenizer = await loadTokenizer(model);
  const encode = vi.fn(tokenizer.encode);
  const options = { tokenizer: { ...tokenizer, encode }, chatTemplate, modelFolder: model, ...changes };
  const encoded: EncodedRow[] = [];
  const note = await encodeWithCache(given, await surveyRows(given), options, (_, row) => encoded.push(row));
  return { encoded, note: note?.text ?? "", isKept: note?.isKept, calls: encode.mock.calls.length, options };
}

const files = () => readdirSync(join(cache, "tokens"));
const only = () => join(cache, "tokens", files()[0] ?? "");

/** Ids as lists, whatever holds them. */
const lists = (encoded: readonly EncodedRow[]) =>
  encoded.map((row) => ({
    ...row,
    promptIds: Array.from(row.promptIds),
    completionIds: Array.from(row.completionIds),
  }));

describe("a second run", () => {
  it("gets the same ids without tokenizing", async () => {
    const first = await run();
    expect(first.note).toMatch(written);
    expect(first.calls).toBeGreaterThan(0);
    const second = await run();
    expect(second.note).toBe(`token ids of 3 rows read from ${only()}`);
    expect(second.calls).toBe(0);
    expect(lists(second.encoded)).toEqual(lists(first.encoded));
    // Ids that were given are handed through, larger than 32 bits or not.
    expect(second.encoded[1]).toMatchObject({ promptIds: [1, 5], completionIds: [2 ** 33] });
  });

  it("makes the same examples and report as without a cache, whatever the length limit", async () => {
    const text = rows.filter((row) => !("promptIds" in row));
    await run(text);
    const { encoded, options, note } = await run(text);
    expect(note).toMatch(read);
    for (const maxLength of [4, 512]) {
      const without = tokenizeRows(text, { ...limits, ...options, maxLength });
      const collector = new ExampleCollector({ ...limits, ...options, maxLength });
      for (const [i, row] of text.entries()) collector.add(row, encoded[i] as EncodedRow);
      expect(collector.finish()).toEqual(without);
    }
  });

  it("gets them whole where they fill many blocks", () => {
    const store = new TokenIdStore();
    const lengths = [200_000, 100_000, 0, 300_000, 262_144, 5];
    const given = lengths.map((length, i) => ({
      promptIds: Uint32Array.from({ length }, (_, at) => at + i),
      completionIds: [i],
      aligned: i % 2 === 0,
      promptIsPrefix: i % 3 === 0,
    }));
    const stored = given.map((row) => store.add(row));
    const words = new Uint32Array(Uint8Array.from(Buffer.concat(store.body())).buffer);
    expect(lists(stored)).toEqual(lists(given));
    expect(lists([...(storedRows(words, 6) ?? [])])).toEqual(lists(given));
    expect(storedRows(words, 5)).toBeUndefined();
  });

  it("remembers which rows were tokenized apart or parted by their template", async () => {
    const parted = template(
      "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} x{% endif %}",
    );
    const given = [...rows, { prompt: "Once up", completion: "on", label: true, source }];
    await run(given, { chatTemplate: parted });
    const { encoded, note } = await run(given, { chatTemplate: parted });
    expect(note).toMatch(read);
    expect(encoded.map(({ promptIsPrefix }) => promptIsPrefix)).toEqual([true, true, true, false, true]);
    expect(encoded.at(-1)?.aligned).toBe(false);
  });

  it("tokenizes again when told to, and keeps the new file alone", async () => {
    await run();
    const { note, calls } = await run(rows, { overwriteCache: true });
    expect(note).toMatch(written);
    expect(calls).toBeGreaterThan(0);
    expect(files()).toHaveLength(1);
  });

  it("leaves the cache alone where all rows are ids", async () => {
    const { note } = await run(rows.slice(1, 2));
    expect(note).toBe("");
    expect(existsSync(join(cache, "tokens"))).toBe(false);
  });
});

describe("what changes is noticed", () => {
  const chat = rows[3] as ChatRow;
  const changedRows: [string, FeedbackRow[]][] = [
    ["a completion", [{ ...(rows[0] as TextRow), completion: " a day" }, ...rows.slice(1)]],
    [
      "what is prompt and what completion",
      [{ ...(rows[0] as TextRow), prompt: "Once", completion: "upon a time" }, ...rows.slice(1)],
    ],
    ["the order", [...rows].reverse()],
    ["a row more", [...rows, ...rows.slice(0, 1)]],
    ["a message", [...rows.slice(0, 3), { ...chat, promptMessages: [{ role: "user", content: "Hello" }] }]],
    [
      "a message's other keys",
      [...rows.slice(0, 3), { ...chat, promptMessages: [{ role: "user", content: "Hi", name: "A" }] }],
    ],
    ["the tools", [...rows.slice(0, 3), { ...chat, tools: [{}] }]],
    ["a row's variables", [...rows.slice(0, 3), { ...chat, templateOptions: { mood: "sad" } }]],
  ];

  it.each([
    ["1.0 for 1", '{"n": 1.0}', '{"n": 1}'],
    ["a long integer's last digit", '{"n": 12345678901234567890}', '{"n": 12345678901234567891}'],
    ["the order of keys", '{"n": {"2": 0, "1": 0}}', '{"n": {"1": 0, "2": 0}}'],
  ])("in the rows: %s", async (_, before, after) => {
    const writing = { chatTemplate: template("{{ messages }}{{ n }}") };
    const withOptions = (json: string): FeedbackRow[] => [
      { ...chat, templateOptions: parseExactJson(json) as NonNullable<ChatRow["templateOptions"]> },
    ];
    const withMessage = (json: string): FeedbackRow[] => [
      { ...chat, promptMessages: [{ role: "user", content: "Hi", ...(parseExactJson(json) as object) }] },
    ];
    for (const rowsOf of [withOptions, withMessage]) {
      const { encoded } = await run(rowsOf(before), writing);
      const changed = await run(rowsOf(after), writing);
      expect(changed.note).toMatch(written);
      expect(lists(changed.encoded)).not.toEqual(lists(encoded));
      expect((await run(rowsOf(before), writing)).note).toMatch(read);
    }
  });

  it.each(changedRows)("in the rows: %s", async (_, changed) => {
    await run();
    expect((await run(changed)).note).toMatch(written);
    expect((await run()).note).toMatch(read);
  });

  it("but not labels, lines and files: the ids are the same", async () => {
    await run();
    const moved = rows.map((row) => ({ ...row, label: !row.label, source: { file: "other.csv", line: 9 } }));
    expect((await run(moved)).note).toMatch(read);
  });

  const changedOptions: [string, Partial<CachedEncodeOptions>][] = [
    ["template", { chatTemplate: template("{% for m in messages %}{{ m.content }}{% endfor %}") }],
    ["template's variables", { templateOptions: { mood: "sad" } }],
    ["appendEos", { appendEos: false }],
  ];
  it.each(changedOptions)("in the settings: %s", async (_, changes) => {
    await run();
    expect((await run(rows, changes)).note).toMatch(written);
  });

  it.each(["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])("in %s", async (name) => {
    await run();
    const path = join(model, name);
    const content = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
    writeFileSync(path, JSON.stringify({ ...content, note: "changed" }));
    expect((await run()).note).toMatch(written);
  });

  it("in the date, where the template may write it", async () => {
    const dated = {
      chatTemplate: template("{{ strftime_now('%d') }}{% for m in messages %}{{ m.content }}{% endfor %}"),
    };
    vi.useFakeTimers({ now: new Date(2026, 0, 1, 12), toFake: ["Date"] });
    await run(rows, dated);
    expect((await run(rows, dated)).note).toMatch(read);
    vi.setSystemTime(new Date(2026, 0, 2, 12));
    expect((await run(rows, dated)).note).toMatch(written);
  });
});

describe("damage and faults are survived", () => {
  it.each([
    ["cut", (bytes: Buffer) => bytes.subarray(0, -8)],
    ["cut to a few bytes", (bytes: Buffer) => bytes.subarray(0, 10)],
    ["empty", () => Buffer.alloc(0)],
    ["longer", (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(4)])],
    ["changed in one bit", (bytes: Buffer) => Buffer.from(bytes.map((byte, i) => (i === 40 ? byte ^ 1 : byte)))],
  ])("a file that is %s is written again", async (_, damage) => {
    const { encoded } = await run();
    writeFileSync(only(), damage(readFileSync(only())));
    const again = await run();
    expect(again.note).toMatch(written);
    expect(lists(again.encoded)).toEqual(lists(encoded));
    expect(files()).toHaveLength(1);
    expect((await run()).note).toMatch(read);
  });

  it("the file of other rows under this name is not believed", async () => {
    await run();
    const name = files()[0] ?? "";
    await run(rows.slice(0, 1));
    const other = files().find((file) => file !== name) ?? "";
    cpSync(join(cache, "tokens", other), join(cache, "tokens", name));
    expect((await run()).note).toMatch(written);
  });

  it("a cache folder that cannot be made is told and does not stop the run", async () => {
    writeFileSync(join(cache, "tokens"), "in the way");
    const { note, encoded, isKept } = await run();
    expect(isKept).toBe(false);
    expect(note).toMatch(/^3 rows tokenized; the ids are not kept: Cannot .*tokens/);
    expect(encoded).toHaveLength(4);
  });

  it("a row that cannot be tokenized is an error as without a cache, and nothing is kept", async () => {
    const refusing = { chatTemplate: template("{{ raise_exception('no') }}") };
    await expect(run(rows, refusing)).rejects.toThrow(DatasetError);
    expect(existsSync(join(cache, "tokens"))).toBe(false);
  });

  it("rows that change between the two times they are read are refused, and nothing is kept", async () => {
    const options = { tokenizer: await loadTokenizer(model), chatTemplate, modelFolder: model };
    const survey = await surveyRows(rows.slice(0, 3));
    await expect(encodeWithCache(rows, survey, options, () => undefined)).rejects.toThrow(
      new DatasetError("The feedback changed while it was read; run the command again."),
    );
    expect(existsSync(join(cache, "tokens"))).toBe(false);
  });

  it("only the newest files are kept", async () => {
    vi.useFakeTimers({ now: 1_000_000, toFake: ["Date"] });
    for (let i = 0; i < 34; i++) {
      vi.setSystemTime(1_000_000 + i);
      await run([{ prompt: "Once", completion: ` ${i}`, label: true, source }]);
    }
    expect(files()).toHaveLength(32);
    const note = async (i: number) => (await run([{ prompt: "Once", completion: ` ${i}`, label: true, source }])).note;
    expect(await note(2)).toMatch(read);
    expect(await note(1)).toMatch(written);
  });
});
