/** Exports larger than the memory that reading them takes. `scripts/large-export.ts` does the same with a gigabyte. */
import { expect, it } from "vitest";
import { summaryWithMemory, writeLargeExport } from "../../../../scripts/large-export.ts";
import { freshPath, temporaryFolder } from "../../../helpers/folders.ts";

const folder = temporaryFolder();

it("an export of one line is read in pieces, by the whole command", () => {
  const [small, large] = [1, 96].map((megabytes) => {
    const path = freshPath(folder, "feedback.json");
    const rows = writeLargeExport(path, megabytes * 2 ** 20);
    const { summary, memory } = summaryWithMemory(path);
    expect(summary.rows).toBe(rows);
    return memory;
  });
  // Held as text and as values, the file would take more than twice its size.
  expect((large ?? 0) - (small ?? 0)).toBeLessThan(130 * 2 ** 20);
});
