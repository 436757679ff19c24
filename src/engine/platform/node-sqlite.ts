/**
 * SQLite databases for reading, by Node's own module where there is one, else by SQLite compiled to WebAssembly
 * (node-sqlite3-wasm, an optional dependency that nothing has to compile). A copy is opened and never the file: even a
 * reader leaves locks and indexes beside a database, and the last changes may stand in a journal that only a writer
 * can apply.
 */
import { constants, copyFile, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorMessage, FileError, ResourceError } from "../../errors.ts";
import { attempt } from "./node-errors.ts";
import type { DatabaseRow, ReadableDatabase } from "./platform.ts";

/** What this file uses of either library. */
interface Driver {
  exec(sql: string): void;
  rows(sql: string, values: readonly (string | number)[]): Iterable<DatabaseRow>;
  close(): void;
}

/** The part of `node:sqlite` that is used; its types come with Node 22's. */
interface NodeSqlite {
  readonly DatabaseSync: new (
    path: string,
  ) => {
    exec(sql: string): void;
    prepare(sql: string): { iterate(...values: (string | number)[]): Iterable<DatabaseRow> };
    close(): void;
  };
}

const builtIn = "node:sqlite";
/** What belongs to a database and stands in files beside it. */
const companions = ["-wal", "-journal"] as const;

export async function openDatabase(path: string): Promise<ReadableDatabase> {
  const open = await loadDriver(path);
  const folder = await attempt("create the folder", tmpdir(), () => mkdtemp(join(tmpdir(), "kto-database-")));
  const copy = join(folder, "copy.db");
  const remove = () => rm(folder, { recursive: true, force: true });
  let driver: Driver | undefined;
  try {
    await attempt("copy", path, () => copyFile(path, copy, constants.COPYFILE_FICLONE));
    for (const ending of companions) {
      const isThere = await stat(path + ending).then(
        () => true,
        () => false,
      );
      if (isThere) await attempt("copy", path + ending, () => copyFile(path + ending, copy + ending));
    }
    driver = open(copy);
    // Without it a write-ahead log needs memory that is shared with other processes.
    driver.exec("PRAGMA locking_mode = EXCLUSIVE");
  } catch (error) {
    driver?.close();
    await remove();
    throw unreadable(path, error);
  }
  const opened = driver;
  return {
    *rows(sql, ...values) {
      try {
        yield* opened.rows(sql, values);
      } catch (error) {
        throw unreadable(path, error);
      }
    },
    async close() {
      opened.close();
      await remove();
    },
  };
}

function unreadable(path: string, error: unknown): Error {
  if (error instanceof FileError) return error;
  const reason = errorMessage(error).replace(/\.$/, "");
  return new FileError(`Cannot read the database ${path}: ${reason}; give a copy made while no program has it open.`, {
    cause: error,
  });
}

/** Node 22 warns that its SQLite may change, which does not concern who reads a database with it. */
async function withoutItsWarning<T>(load: () => Promise<T>): Promise<T> {
  const { emitWarning } = process;
  process.emitWarning = (warning: string | Error, ...rest: unknown[]) => {
    if (!(rest[0] === "ExperimentalWarning" && /SQLite/.test(String(warning)))) {
      Reflect.apply(emitWarning, process, [warning, ...rest]);
    }
  };
  try {
    return await load();
  } finally {
    process.emitWarning = emitWarning;
  }
}

async function loadDriver(path: string): Promise<(file: string) => Driver> {
  let own: NodeSqlite | undefined;
  try {
    own = await withoutItsWarning(async () => (await import(builtIn)) as NodeSqlite);
  } catch {
    // Node 20 has no such module, and Node 22 has it from 22.13.
  }
  if (own !== undefined) {
    const { DatabaseSync } = own;
    return (file) => {
      const database = new DatabaseSync(file);
      return {
        exec: (sql) => database.exec(sql),
        rows: (sql, values) => database.prepare(sql).iterate(...values),
        close: () => database.close(),
      };
    };
  }
  try {
    const { default: sqlite } = await import("node-sqlite3-wasm");
    return (file) => {
      const database = new sqlite.Database(file);
      return {
        exec: (sql) => database.exec(sql),
        *rows(sql, values) {
          const statement = database.prepare(sql);
          try {
            yield* statement.iterate([...values]) as Iterable<DatabaseRow>;
          } finally {
            statement.finalize();
          }
        },
        close: () => database.close(),
      };
    };
  } catch (error) {
    throw new ResourceError(
      `To read the database ${path}, Node ${process.versions.node} needs the package node-sqlite3-wasm, which cannot be loaded (${errorMessage(error)}): npm install node-sqlite3-wasm, or use Node 22.13 or later.`,
      { cause: error },
    );
  }
}
