/** Exports larger than the memory that reading them takes. `scripts/large-export.ts` does the same with a gigabyte. */
import { expect, it } from "vitest";
import { summaryWithMemory, writeLargeExport } from "../../../../scripts/large-export.ts";
import { freshPath, temporaryFolder } from "../../../helpers/folders.ts";

const folder = temporaryFolder();

it("an export of one line is read in pieces, by the whole command", () => {
  const path = freshPath(folder, "feedback.json");
  const rows = writeLargeExport(path, 16 * 2 ** 20);
  // Held as text and as values, the file would take more than twice its size, and the process would die.
  const { summary } = summaryWithMemory(path, { heapMegabytes: 36 });
  expect(summary.rows).toBe(rows);
});
