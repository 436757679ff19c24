/** The kinds of feedback that the fuzzer damages: rows in every format, and exports of chat programs. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { type ColumnSource, parquetWriteBuffer } from "hyparquet-writer";
import { type ReadOptions, readFeedback } from "../../src/kto/data/read.ts";
import { type FuzzKind, write } from "./fuzz-kind.ts";
import type { FileForm } from "./mutations.ts";

const feedback = (
  files: Readonly<Record<string, () => string | Uint8Array>>,
  form: FileForm,
  options: ReadOptions = {},
): FuzzKind => ({
  prepare: (folder) => write(folder, Object.fromEntries(Object.entries(files).map(([name, text]) => [name, text()]))),
  files: Object.fromEntries(Object.keys(files).map((name) => [name, form])),
  read: (folder, damaged) => readFeedback(join(folder, damaged), { onWarning: () => {}, ...options }),
});
const rowsOf = (name: string) => () => readFileSync(`test/fixtures/feedback/${name}`, "utf8");
const firstRows = (name: string) => () => `${rowsOf(name)().split("\n").slice(0, 8).join("\n")}\n`;
/** Columns that hold the same rows, written so that each meets another way of parquet's. */
function encodedParquet(codec: NonNullable<ColumnSource["codec"]>, encoding: ColumnSource["encoding"]): Uint8Array {
  const rows = Array.from({ length: 40 }, (_, i) => ({
    prompt: `A prompt ${i % 9}`,
    completion: `An answer, the ${i}th`,
  }));
  const text = (name: "prompt" | "completion"): ColumnSource => ({
    name,
    data: rows.map((row) => row[name]),
    type: "STRING",
    nullable: name === "prompt",
    ...(encoding === undefined ? {} : { encoding }),
  });
  const labels = { name: "label", data: rows.map((_, i) => (i * 7) % 3 === 0), type: "BOOLEAN" as const };
  const columnData = [text("prompt"), text("completion"), labels];
  const compressors = {
    GZIP: (bytes: Uint8Array) => gzipSync(bytes),
    BROTLI: (bytes: Uint8Array) => brotliCompressSync(bytes),
  };
  return new Uint8Array(parquetWriteBuffer({ columnData, codec, compressors, rowGroupSize: 25 }));
}

const exported = (...names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [name, () => readFileSync(`test/fixtures/exports/${name}`)]));

export const feedbackKinds: Readonly<Record<string, FuzzKind>> = {
  jsonl: feedback(
    {
      "conversational.jsonl": firstRows("kto_en_demo.conversational.jsonl"),
      "messages.jsonl": firstRows("kto_en_demo.messages.jsonl"),
      "paired.jsonl": firstRows("dpo_en_demo.paired.jsonl"),
      "plain.jsonl": () =>
        readFileSync("examples/quickstart/feedback.jsonl", "utf8").split("\n").slice(0, 8).join("\n"),
    },
    "text",
  ),
  json: feedback(
    {
      "list.json": () => `[\n${firstRows("kto_en_demo.conversational.jsonl")().trim().split("\n").join(",\n")}\n]`,
      "lines.json": firstRows("kto_en_demo.messages.jsonl"),
    },
    "text",
  ),
  csv: feedback({ "rows.csv": rowsOf("kto_en_demo.csv") }, "text"),
  parquet: feedback(
    {
      "rows.parquet": () => readFileSync("test/fixtures/feedback/kto_en_demo.parquet"),
      "messages.parquet": () => readFileSync("test/fixtures/feedback/kto_en_demo_messages.parquet"),
    },
    "binary",
  ),
  "parquet of other writers": feedback(
    {
      "plain.parquet": () => encodedParquet("UNCOMPRESSED", "PLAIN"),
      "gzip.parquet": () => encodedParquet("GZIP", undefined),
      "brotli.parquet": () => encodedParquet("BROTLI", undefined),
      "lengths.parquet": () => encodedParquet("UNCOMPRESSED", "DELTA_LENGTH_BYTE_ARRAY"),
      "prefixes.parquet": () => encodedParquet("UNCOMPRESSED", "DELTA_BYTE_ARRAY"),
    },
    "pages",
  ),
  "exports of conversations": feedback(
    exported("openwebui-feedback.json", "openwebui-chats.json", "librechat.json"),
    "text",
  ),
  "exports of answers": feedback(exported("dify.json", "anythingllm.json", "arena.jsonl", "gradio.csv"), "text"),
  "exports of scores": feedback(exported("langfuse.json"), "text", { columnMapping: { label: "user-feedback" } }),
  "exports of annotations": feedback(exported("argilla.json"), "text", {
    columnMapping: { prompt: "chat", completion: "reply", label: "thumb" },
  }),
  "chat database": feedback(exported("openwebui.db"), "pages"),
};
