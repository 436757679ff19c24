/** `kto data`: what it tells of a file, with and without a model, and the rows that it writes. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { fileIn, freshPath, jsonl, stories, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

const folder = temporaryFolder();
const real = "test/fixtures/feedback";

const data = (...words: string[]) => kto("data", ...words);

const judged = [
  { prompt: "Once", completion: " upon a time", label: true },
  { prompt: "Once", completion: " upon a time", label: true },
  { prompt: "Once", completion: " upon a time", label: false },
  { prompt: "There", completion: " was\u001b[2J", label: false },
  { prompt: "There", completion: "", label: false },
];

describe("kto data", () => {
  it("counts in characters without a model", async () => {
    const { code, stdout } = await data("--dataset_name", fileIn(folder, "rows.jsonl", jsonl(judged)));
    expect(code).toBe(0);
    expect(stdout).toMatch(/layout +prompt\/completion\/label\n/);
    expect(stdout).toMatch(/rows +5: 2 desirable, 3 undesirable\n/);
    expect(stdout).toMatch(/distinct +2 prompts, 3 completions\n/);
    expect(stdout).toMatch(/repeated +1 row says again/);
    expect(stdout).toMatch(/contradicted +1 completion is/);
    expect(stdout).toMatch(/prompt +min 4, median 4, p95 5, max 5 characters\n/);
    // lambda_D n_D / (lambda_U n_U) = 4/3 with n_D = 2, n_U = 3: lambda_D = 2.
    expect(stdout).toMatch(/outside \[1, 1\.5\]; auto for both sets desirable_weight 2, undesirable_weight 1\n/);
    expect(stdout).toContain("--- ");
    expect(stdout).toContain("Once>>> upon a time<<<\n");
  });

  it("tells once of columns that are not read, however often the rows are gone through", async () => {
    const file = fileIn(folder, "both.jsonl", jsonl([{ ...judged[0], chosen: " a", rejected: " b" }]));
    const { code, stdout, stderr } = await data("--dataset_name", file, "--model", stories);
    expect(code).toBe(0);
    expect(stdout).toMatch(/layout +prompt\/chosen\/rejected\n/);
    expect(stderr.match(/"completion" and "label" of 1 row \(line 1\) are not read/g)).toHaveLength(1);
  });

  it("refuses a pipe or a device, and does not wait for it", async () => {
    const pipe = join(folder, "pipe.jsonl");
    execFileSync("mkfifo", [pipe]);
    const device = join(folder, "zero.jsonl");
    symlinkSync("/dev/zero", device);
    for (const path of [pipe, device]) {
      expect(await data("--dataset_name", path)).toMatchObject({
        code: 7,
        stdout: "",
        stderr: `error: Cannot open ${path}: it is a pipe or a device, not a regular file; write what comes from it to a file first.\n`,
      });
    }
  });

  it("shows the tools and the tool calls of a conversation, numbers as the file has them", async () => {
    const tools = [{ type: "function", function: { name: "weather" } }];
    const call = `{"name": "weather", "arguments": {"days": 1.0}}`;
    const messages = [
      `{"role": "user", "content": "Rain?"}`,
      `{"role": "assistant", "tool_calls": [${call}]}`,
      `{"role": "tool", "name": "weather", "content": "dry"}`,
      `{"role": "assistant", "content": "No."}`,
    ];
    const line = `{"messages": [${messages.join(", ")}], "tools": ${JSON.stringify(tools)}, "label": true}\n`;
    const { code, stdout } = await data("--dataset_name", fileIn(folder, "tools.jsonl", line));
    expect(code).toBe(0);
    expect(stdout).toContain(`[tools] ${JSON.stringify(tools)}\n[user] Rain?\n`);
    expect(stdout).toContain(`[assistant]\n  tool_calls: [{"name":"weather","arguments":{"days":1.0}}]\n`);
    expect(stdout).toContain(`[tool] dry\n  name: "weather"\n`);
    expect(stdout).toContain("[assistant] No.");
  });

  it("counts in tokens with a model, names what is dropped, and shows what the model sees", async () => {
    const file = fileIn(folder, "rows.jsonl", jsonl(judged));
    const { code, stdout } = await data("--dataset_name", file, "--model", stories, "--json");
    expect(code).toBe(0);
    const found = JSON.parse(stdout);
    expect(found).toMatchObject({
      file,
      layout: "prompt/completion/label",
      rows: 5,
      kept: 4,
      desirable: 2,
      undesirable: 2,
      length_unit: "tokens",
      dropped: [{ reason: "the completion is empty", count: 1, first_lines: [5] }],
    });
    expect(found.examples).toHaveLength(3);
    // With the space that its first token has: decoded alone it would be lost.
    expect(found.examples[0]).toMatchObject({ label: true, completion: " upon a time</s>" });
    expect(found.examples[0].prompt).toMatch(/^<s>/);
  });

  it("puts no end token behind texts that were cut, with append_eos false", async () => {
    const words = ["--dataset_name", fileIn(folder, "rows.jsonl", jsonl(judged)), "--model", stories, "--json"];
    const [ended, cut] = [await data(...words), await data(...words, "--append_eos", "false")];
    expect([ended.code, cut.code]).toEqual([0, 0]);
    const completionOf = (stdout: string) => JSON.parse(stdout).examples[0].completion;
    expect([completionOf(ended.stdout), completionOf(cut.stdout)]).toEqual([" upon a time</s>", " upon a time"]);
  });

  it("takes rows without a label where labels are optional, as for kto sft", async () => {
    const file = fileIn(folder, "rows.jsonl", jsonl(judged.map(({ label: _, ...row }) => row)));
    const refused = await data("--dataset_name", file);
    expect([refused.code, refused.stderr]).toEqual([
      3,
      expect.stringMatching(
        /"label" is missing; read it from .* \(column_mapping\); kto sft .* --labels optional shows them\./,
      ),
    ]);
    const { code, stdout, stderr } = await data("--dataset_name", file, "--labels", "optional", "--model", stories);
    expect([code, stderr]).toEqual([0, expect.not.stringContaining("one class alone")]);
    expect(stdout).toMatch(/layout +prompt\/completion\nrows +5: 4 desirable, 0 undesirable\nkept +4\n/);
    expect(stdout).toMatch(/completion +min \d+, median \d+, p95 \d+, max \d+ tokens\n/);
  });

  it("takes an adapter's folder for its base", async () => {
    const adapter = freshPath(folder, "adapter");
    mkdirSync(adapter);
    const config = {
      peft_type: "LORA",
      base_model_name_or_path: resolve(stories),
      r: 8,
      lora_alpha: 8,
      target_modules: ["q_proj"],
    };
    writeFileSync(join(adapter, "adapter_config.json"), JSON.stringify(config));
    writeFileSync(join(adapter, "adapter_model.safetensors"), "");
    const file = fileIn(folder, "rows.jsonl", jsonl(judged));
    const { code, stdout, stderr } = await data("--dataset_name", file, "--model", adapter, "--json");
    expect(code, stderr).toBe(0);
    expect(stdout).toBe((await data("--dataset_name", file, "--model", stories, "--json")).stdout);
  });

  it("writes pairs as single rows, which read back as they were", async () => {
    const out = freshPath(folder, "out.jsonl");
    const pairs = `${real}/dpo_en_demo.paired.jsonl`;
    const { code, stdout, stderr } = await data("--dataset_name", pairs, "--output", out);
    expect(code).toBe(0);
    expect(stdout).toMatch(/rows +16 \(8 pairs\): 8 desirable, 8 undesirable/);
    expect(stderr).toContain(`16 rows were written to ${out}.`);
    const bare = (rows: Awaited<ReturnType<typeof readFeedback>>) => rows.map(({ source: _, pair: __, ...row }) => row);
    expect(bare(await readFeedback(out))).toEqual(bare(await readFeedback(pairs)));
    expect(readFileSync(out, "utf8").split("\n")).toHaveLength(17);
  });

  it("reads columns of other names and a slice of a split in a folder", async () => {
    const rows = Array.from({ length: 4 }, (_, i) => ({ q: `q${i}`, a: `a${i}`, thumb: i % 2 }));
    const file = fileIn(folder, "test.jsonl", jsonl(rows));
    const mapping = '{"prompt": "q", "completion": "a", "label": "thumb"}';
    const words = ["--dataset_name", file, "--column_mapping", mapping, "--dataset_train_split", "train[1:]"];
    const { code, stdout } = await data(...words);
    expect(code).toBe(0);
    expect(stdout).toMatch(/rows +3: 2 desirable, 1 undesirable/);
    const parent = file.slice(0, -"/test.jsonl".length);
    const split = await data("--dataset_name", parent, "--column_mapping", mapping, "dataset_train_split=test[:50%]");
    expect(split.stdout).toMatch(/rows +2: 1 desirable, 1 undesirable/);
    const wrong = await data("--dataset_name", file, "--column_mapping", '{"prompt": "question"}');
    expect(wrong.code).toBe(3);
    expect(wrong.stderr).toMatch(/reads "prompt" from the column "question", which is not there/);
  });

  it("does not let a file's control characters reach the terminal", async () => {
    const { stdout } = await data("--dataset_name", fileIn(folder, "rows.jsonl", jsonl(judged.slice(3))));
    expect(stdout).toContain(" was\\x1b[2J");
  });

  it("refuses to write over what it reads, another ending, and a split or subset that one file does not have", async () => {
    const file = fileIn(folder, "own.jsonl", jsonl(judged));
    const over = await data("--dataset_name", file, "--output", file);
    expect([over.code, over.stderr]).toEqual([
      2,
      expect.stringMatching(/is the feedback file itself: choose another name/),
    ]);
    expect(readFileSync(file, "utf8")).toBe(jsonl(judged));
    const csv = await data("--dataset_name", file, "--output", freshPath(folder, "x.csv"));
    expect([csv.code, csv.stderr]).toEqual([2, expect.stringMatching(/it must be a path that ends in \.jsonl/)]);
    const split = await data("--dataset_name", file, "--dataset_train_split", "test");
    expect([split.code, split.stderr]).toEqual([
      2,
      expect.stringMatching(/is one file, whose rows are the split "train"; it has no split "test"/),
    ]);
    const subset = await data("--dataset_name", file, "--dataset_config", "en");
    expect([subset.code, subset.stderr]).toEqual([2, expect.stringMatching(/it has no subset "en"/)]);
  });
});
