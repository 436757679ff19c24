/** Exports larger than the memory that reading them takes. `scripts/large-export.ts` does the same with a gigabyte. */
import { expect, test } from "vitest";
import { summaryWithMemory, writeLargeExport } from "../../../../scripts/large-export.ts";
import type { LargeShapeName } from "../../../../scripts/large-shapes.ts";
import { freshPath, temporaryFolder } from "../../../helpers/folders.ts";

const folder = temporaryFolder();

test.each<[what: string, name: LargeShapeName, megabytes: number, rows: number]>([
  ["of one line", "open-webui", 16, 1],
  ["whose records are a list inside an object", "dify", 16, 1],
  ["with a record for each message, all of whose conversations are rated,", "librechat", 24, 2],
])("an export %s is read in pieces, by the whole command", (_, name, megabytes, rows) => {
  const path = freshPath(folder, "feedback.json");
  const conversations = writeLargeExport(path, megabytes * 2 ** 20, name);
  // Held as text and as values, the file would take more than there is, and the process would die.
  const { summary } = summaryWithMemory(path, name, { heapMegabytes: 36 });
  expect(summary.rows).toBe(rows * conversations);
});
