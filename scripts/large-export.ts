/**
 * How much memory `kto data` takes for a large export of feedback: writes one in Open WebUI's shape, all of it one line
 * as the program does, and runs the command on it in a process of its own. Arguments: the size in MB (default 1024).
 * `npx tsx scripts/large-export.ts 1024` prints the sizes and the rows.
 */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const launcher = join(import.meta.dirname, "..", "bin", "kto.js");
/** Writes the largest resident memory to stderr when the process ends. */
const tellMemory = `data:text/javascript,process.on("exit",()=>console.error("maxrss",process.resourceUsage().maxRSS))`;

/** One record, about 8 kB: a chat of a few turns, which the program stores as a tree and as a list. */
function record(i: number): unknown {
  const text = (name: string) => `${name} ${i}: ${"the quick brown fox jumps over the lazy dog ".repeat(18)}`;
  const messages = {
    [`q${i}`]: { id: `q${i}`, parentId: null, role: "user", content: text("question") },
    [`a${i}`]: { id: `a${i}`, parentId: `q${i}`, role: "assistant", content: text("answer"), done: true },
    [`r${i}`]: { id: `r${i}`, parentId: `a${i}`, role: "user", content: text("more") },
    [`b${i}`]: { id: `b${i}`, parentId: `r${i}`, role: "assistant", content: text("last"), done: true },
  };
  const history = { messages, currentId: `b${i}` };
  const chat = { id: "", title: "Large", params: {}, history, messages: Object.values(messages) };
  return {
    id: `record-${i}`,
    user_id: `user-${i % 100}`,
    type: "rating",
    data: { rating: i % 3 === 0 ? -1 : 1, model_id: "model" },
    meta: { message_id: `b${i}`, chat_id: `chat-${i}` },
    snapshot: { chat: { id: `chat-${i}`, chat } },
    created_at: 1764000000 + i,
    updated_at: 1764000000 + i,
  };
}

/** Writes an export of at least so many bytes, in pieces; returns the number of its records. */
export function writeLargeExport(path: string, bytes: number): number {
  const file = openSync(path, "w");
  let count = 0;
  let written = writeSync(file, "[");
  while (written < bytes) {
    const records = Array.from({ length: 100 }, () => JSON.stringify(record(count++)));
    written += writeSync(file, `${count === records.length ? "" : ", "}${records.join(", ")}`);
  }
  writeSync(file, "]");
  closeSync(file);
  return count;
}

/**
 * Runs `kto data --json` on a file; `memory` is the largest resident memory of the process in bytes.
 *
 * @throws Error where the command fails, as it does where V8 needs a larger heap
 */
export function summaryWithMemory(
  path: string,
  { heapMegabytes }: { readonly heapMegabytes?: number } = {},
): {
  readonly summary: { readonly rows: number };
  readonly memory: number;
} {
  const limit = heapMegabytes === undefined ? [] : [`--max-old-space-size=${heapMegabytes}`];
  const words = [...limit, "--import", tellMemory, launcher, "data", "--dataset_name", path, "--json"];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: "utf8", maxBuffer: 2 ** 30 });
  const kilobytes = Number(/maxrss (\d+)/.exec(stderr)?.[1]);
  if (status !== 0 || Number.isNaN(kilobytes)) throw new Error(`kto data ended with ${status}: ${stderr}`);
  return { summary: JSON.parse(stdout), memory: 1024 * kilobytes };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const folder = mkdtempSync(join(tmpdir(), "kto-large-"));
  try {
    const path = join(folder, "feedback.json");
    const megabytes = Number(process.argv[2] ?? 1024);
    const records = writeLargeExport(path, megabytes * 2 ** 20);
    const { summary, memory } = summaryWithMemory(path);
    console.log(
      `${megabytes} MB, ${records} records: ${summary.rows} rows, ${Math.round(memory / 2 ** 20)} MB of memory`,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
