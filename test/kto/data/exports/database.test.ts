/**
 * Open WebUI's database: read without being written to, whatever journals stand beside it. SQLite itself writes them.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { expect, it, vi } from "vitest";
import { readFeedback } from "../../../../src/kto/data/read.ts";
import { fileIn, freshPath, temporaryFolder } from "../../../helpers/folders.ts";
import { kto } from "../../../helpers/streams.ts";

const sqlite = createRequire(import.meta.url)("node-sqlite3-wasm") as typeof import("node-sqlite3-wasm");
const folder = temporaryFolder();
const quiet = { onWarning: () => {} };
const original = readFileSync("test/fixtures/exports/openwebui.db");

/** Names, contents and times of all files of a folder. */
function stateOf(path: string): unknown {
  return readdirSync(path).map((name) => {
    const { mtimeMs, size } = statSync(join(path, name));
    return [
      name,
      size,
      mtimeMs,
      createHash("sha256")
        .update(readFileSync(join(path, name)))
        .digest("hex"),
    ];
  });
}

it("leaves the file and its folder as they are, and no copy behind", async () => {
  const path = fileIn(folder, "webui.db", original);
  const temporary = mkdtempSync(join(folder, "tmp-"));
  vi.stubEnv("TMPDIR", temporary);
  try {
    const before = stateOf(dirname(path));
    expect(await readFeedback(path, quiet)).toHaveLength(5);
    expect(stateOf(dirname(path))).toEqual(before);
    expect(readdirSync(temporary)).toEqual([]);
  } finally {
    vi.unstubAllEnvs();
  }
});

it("reads what a write-ahead log holds, and leaves the log", async () => {
  const path = fileIn(folder, "webui.db", original);
  const database = new sqlite.Database(path);
  // The log of a program that still runs: without exclusive locks this SQLite cannot write one.
  database.exec(
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; DELETE FROM feedback WHERE snapshot IS NULL",
  );
  const copy = freshPath(folder, "webui.db");
  copyFileSync(path, copy);
  copyFileSync(`${path}-wal`, `${copy}-wal`);
  database.close();
  expect(statSync(`${copy}-wal`).size).toBeGreaterThan(0);
  const before = stateOf(dirname(copy));
  const { code, stdout } = await kto("data", "--dataset_name", copy, "--json");
  expect(code).toBe(0);
  // The record without chat is gone; the one whose chat is there has left a thumb without its record.
  expect(JSON.parse(stdout).dropped).toEqual([
    { id: "j2", reason: "deleted" },
    { id: "m2", reason: "deleted" },
  ]);
  expect(stateOf(dirname(copy))).toEqual(before);
});

it("a database of another program is refused by its tables", async () => {
  const path = freshPath(folder, "other.db");
  const database = new sqlite.Database(path);
  database.exec("CREATE TABLE songs (name TEXT)");
  database.close();
  await expect(readFeedback(path)).rejects.toThrow(/other\.db is a database of another program: .*tables songs;/);
});

it("columns that hold no JSON, and a table without chats, give reasons", async () => {
  const path = fileIn(folder, "webui.db", original);
  const database = new sqlite.Database(path);
  database.exec("UPDATE feedback SET snapshot = '{broken', data = '1' WHERE rowid = 1; DROP TABLE chat");
  database.close();
  const { code, stdout } = await kto("data", "--dataset_name", path, "--json");
  expect(code).toBe(0);
  expect(JSON.parse(stdout).dropped.map(({ reason }: { reason: string }) => reason)).toEqual([
    "no-rating",
    "answer-missing",
    "answer-missing",
  ]);
});

it("without SQLite the sentence says what to install", () => {
  const path = fileIn(folder, "webui.db", original);
  const hook =
    'export function resolve(name, context, next) { if (/sqlite/.test(name) && !/node-sqlite\\./.test(name)) throw new Error("gone"); return next(name, context); }';
  const hidden = `import { register } from "node:module"; register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hook)}`)});`;
  const words = ["--import", `data:text/javascript,${encodeURIComponent(hidden)}`, "bin/kto.js", "data"];
  const { status, stderr } = spawnSync(process.execPath, [...words, "--dataset_name", path], { encoding: "utf8" });
  expect(stderr).toMatch(
    /needs the package node-sqlite3-wasm, which cannot be loaded .*: npm install node-sqlite3-wasm,/,
  );
  expect(status).toBe(10);
});

it("is found in a folder by its ending", async () => {
  const path = join(freshPath(folder, "instance"), "webui.db");
  mkdirSync(dirname(path));
  writeFileSync(path, original);
  const { code, stdout } = await kto("data", "--dataset_name", dirname(path), "--json");
  expect([code, JSON.parse(stdout).rows]).toEqual([0, 5]);
});

it("brings no warning of Node's with it", () => {
  const path = fileIn(folder, "webui.db", original);
  const words = ["bin/kto.js", "data", "--dataset_name", path, "--json", "--quiet"];
  const { status, stderr } = spawnSync(process.execPath, words, { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  expect(stderr).not.toContain("(node:");
});
