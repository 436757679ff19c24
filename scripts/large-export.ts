/**
 * How much memory `kto data` takes for a large export of feedback: writes one in a program's shape, all of it one line
 * where the program does so, and runs the command on it in a process of its own. Arguments: the size in MB (default
 * 1024) and names of shapes (default all). `npx tsx scripts/large-export.ts 1024 librechat` prints sizes and rows.
 */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const launcher = join(import.meta.dirname, "..", "bin", "kto.js");
/** Writes the largest resident memory to stderr when the process ends. */
const tellMemory = `data:text/javascript,process.on("exit",()=>console.error("maxrss",process.resourceUsage().maxRSS))`;

const filler = "the quick brown fox jumps over the lazy dog ".repeat(18);
const text = (name: string, i: number) => `${name} ${i}: ${filler}`;
const dateOf = (i: number) => new Date(1764000000000 + 1000 * i).toISOString();

/** A conversation's records, by its number, each some kB; lists are written as one line. */
interface LargeShape {
  readonly records: (i: number) => readonly unknown[];
  readonly isList?: boolean;
  readonly words?: readonly string[];
}

/** Each has the texts of a chat of two questions and answers; the last answer is rated, of LibreChat both. */
export const largeShapes = {
  /** Feedback, whose chats the program stores as a tree and as a list. */
  "open-webui": {
    isList: true,
    records: (i) => {
      const messages = {
        [`q${i}`]: { id: `q${i}`, parentId: null, role: "user", content: text("question", i) },
        [`a${i}`]: { id: `a${i}`, parentId: `q${i}`, role: "assistant", content: text("answer", i), done: true },
        [`r${i}`]: { id: `r${i}`, parentId: `a${i}`, role: "user", content: text("more", i) },
        [`b${i}`]: { id: `b${i}`, parentId: `r${i}`, role: "assistant", content: text("last", i), done: true },
      };
      const history = { messages, currentId: `b${i}` };
      const chat = { id: "", title: "Large", params: {}, history, messages: Object.values(messages) };
      const record = {
        id: `record-${i}`,
        user_id: `user-${i % 100}`,
        type: "rating",
        data: { rating: i % 3 === 0 ? -1 : 1, model_id: "model" },
        meta: { message_id: `b${i}`, chat_id: `chat-${i}` },
        snapshot: { chat: { id: `chat-${i}`, chat } },
        created_at: 1764000000 + i,
        updated_at: 1764000000 + i,
      };
      return [record];
    },
  },
  /** Messages with a record each, as mongoexport writes them. */
  librechat: {
    records: (i) => {
      const of = { conversationId: `00000000-0000-4000-8000-${String(i).padStart(12, "0")}` };
      const ids = Array.from({ length: 4 }, (_, k) => of.conversationId.replace("-4000-", `-400${k + 1}-`));
      return ids.map((messageId, k) => ({
        ...{ _id: { $oid: `${k}${String(i).padStart(23, "0")}` }, messageId, ...of },
        ...{ parentMessageId: ids[k - 1] ?? "00000000-0000-0000-0000-000000000000", isCreatedByUser: k % 2 === 0 },
        ...{ text: text(`part ${k}`, i), createdAt: { $date: dateOf(i) }, updatedAt: { $date: dateOf(i) } },
        ...(k % 2 === 1 ? { feedback: { rating: i % 3 === 0 ? "thumbsDown" : "thumbsUp" }, model: "model" } : {}),
      }));
    },
  },
  oasst: {
    words: ["--column_mapping", '{"label": "quality"}', "--label_threshold", "0.5"],
    records: (i) =>
      [0, 1, 2, 3].map((k) => ({
        ...{ message_id: `m${i}-${k}`, parent_id: k === 0 ? null : `m${i}-${k - 1}`, created_date: dateOf(i) },
        ...{ text: text(`part ${k}`, i), role: k % 2 === 0 ? "prompter" : "assistant", message_tree_id: `m${i}-0` },
        ...(k === 3 ? { labels: { name: ["quality"], value: [(i % 3) / 2] } } : {}),
      })),
  },
  langfuse: {
    words: ["--column_mapping", '{"label": "thumb"}'],
    records: (i) => [
      {
        ...{ id: `trace-${i}`, timestamp: dateOf(i), environment: "default", thumb: [i % 3 === 0 ? 0 : 1] },
        input: {
          messages: ["question", "answer", "more"].map((name, k) => ({
            role: k % 2 === 0 ? "user" : "assistant",
            content: text(name, i),
          })),
        },
        output: { role: "assistant", content: text("last", i) },
      },
    ],
  },
} as const satisfies Readonly<Record<string, LargeShape>>;

export type LargeShapeName = keyof typeof largeShapes;

/** Writes an export of at least so many bytes, in pieces; returns the number of its conversations. */
export function writeLargeExport(path: string, bytes: number, name: LargeShapeName): number {
  const { records, isList = false }: LargeShape = largeShapes[name];
  const file = openSync(path, "w");
  let count = 0;
  let written = isList ? writeSync(file, "[") : 0;
  while (written < bytes) {
    const first = count === 0;
    const batch = Array.from({ length: 100 }, () => records(count++).map((record) => JSON.stringify(record))).flat();
    written += writeSync(file, isList ? `${first ? "" : ", "}${batch.join(", ")}` : `${batch.join("\n")}\n`);
  }
  if (isList) writeSync(file, "]");
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
  name: LargeShapeName,
  { heapMegabytes }: { readonly heapMegabytes?: number } = {},
): {
  readonly summary: { readonly rows: number };
  readonly memory: number;
} {
  const limit = heapMegabytes === undefined ? [] : [`--max-old-space-size=${heapMegabytes}`];
  const { words: own = [] }: LargeShape = largeShapes[name];
  const words = [...limit, "--import", tellMemory, launcher, "data", "--dataset_name", path, "--json", ...own];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: "utf8", maxBuffer: 2 ** 30 });
  const kilobytes = Number(/maxrss (\d+)/.exec(stderr)?.[1]);
  if (status !== 0 || Number.isNaN(kilobytes)) throw new Error(`kto data ended with ${status}: ${stderr}`);
  return { summary: JSON.parse(stdout), memory: 1024 * kilobytes };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [megabytes = 1024, ...asked] = [Number(process.argv[2] ?? 1024), ...process.argv.slice(3)];
  const known = Object.keys(largeShapes) as LargeShapeName[];
  for (const name of known.filter((one) => asked.length === 0 || asked.includes(one))) {
    const folder = mkdtempSync(join(tmpdir(), "kto-large-"));
    try {
      const path = join(folder, "feedback.json");
      const conversations = writeLargeExport(path, megabytes * 2 ** 20, name);
      const { summary, memory } = summaryWithMemory(path, name);
      console.log(
        `${name}: ${megabytes} MB, ${conversations} conversations: ${summary.rows} rows, ${Math.round(memory / 2 ** 20)} MB of memory`,
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
}
