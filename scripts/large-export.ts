/**
 * How much memory `kto data` takes for a large export of feedback: writes one in a program's shape, all of it one line
 * where the program does so, and runs the command on it in a process of its own. Arguments: the size in MB (default
 * 1024) and names of shapes (default all). `npx tsx scripts/large-export.ts 1024 librechat` prints sizes and rows.
 */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type LargeShape, type LargeShapeName, largeShapes } from "./large-shapes.ts";

const launcher = join(import.meta.dirname, "..", "bin", "kto.js");
/** Writes the largest resident memory to stderr when the process ends. */
const tellMemory = `data:text/javascript,process.on("exit",()=>console.error("maxrss",process.resourceUsage().maxRSS))`;

/** Writes an export of at least so many bytes, in pieces; returns the number of its conversations. */
export function writeLargeExport(path: string, bytes: number, name: LargeShapeName): number {
  const { records, around, ending, header = [] }: LargeShape = largeShapes[name];
  if (ending === "db") return writeLargeDatabase(path, bytes, records);
  const csvLine = (cells: readonly unknown[]) =>
    cells.map((cell) => (/[",\n]/.test(String(cell)) ? `"${String(cell).replaceAll('"', '""')}"` : cell)).join();
  const lineOf = (record: unknown) => (Array.isArray(record) ? csvLine(record) : JSON.stringify(record));
  const file = openSync(path, "w");
  let count = 0;
  let written = writeSync(file, around?.[0] ?? (header.length > 0 ? `${header.join()}\n` : ""));
  while (written < bytes) {
    const first = count === 0;
    const batch = Array.from({ length: 100 }, () => records(count++).map(lineOf)).flat();
    written += writeSync(file, around ? `${first ? "" : ", "}${batch.join(", ")}` : `${batch.join("\n")}\n`);
  }
  if (around) writeSync(file, around[1]);
  closeSync(file);
  return count;
}

/** Open WebUI's database, with the records as rows of its table of ratings. */
function writeLargeDatabase(path: string, bytes: number, records: LargeShape["records"]): number {
  const { Database } = createRequire(import.meta.url)("node-sqlite3-wasm") as typeof import("node-sqlite3-wasm");
  const database = new Database(path);
  const columns = ["id", "user_id", "type", "data", "meta", "snapshot", "created_at", "updated_at"];
  database.exec(
    `PRAGMA journal_mode = OFF; CREATE TABLE feedback (${columns.join()}); CREATE TABLE chat (id, user_id, chat, created_at)`,
  );
  const insert = database.prepare(`INSERT INTO feedback VALUES (${columns.map(() => "?").join()})`);
  let [count, written] = [0, 0];
  while (written < bytes) {
    database.exec("BEGIN");
    for (let i = 0; i < 1000; i++) {
      for (const record of records(count++)) {
        const cells = columns.map((column) => {
          const value = (record as Readonly<Record<string, unknown>>)[column];
          return typeof value === "number" || typeof value === "string" ? value : JSON.stringify(value);
        });
        written += cells.reduce<number>((sum, cell) => sum + String(cell).length, 0);
        insert.run(cells);
      }
    }
    database.exec("COMMIT");
  }
  insert.finalize();
  database.close();
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
      const { ending = "json" }: LargeShape = largeShapes[name];
      const path = join(folder, `feedback.${ending}`);
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
