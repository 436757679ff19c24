/** Exports as tests write them, and the rows that they give in short. */
import type { ColumnMapping } from "../../src/kto/data/columns.ts";
import type { ExportReport } from "../../src/kto/data/exports/report.ts";
import { feedbackRows } from "../../src/kto/data/read.ts";
import { fileIn } from "./folders.ts";

/**
 * Rows in short: "role: text | role: text", the answer, the label; and "id reason" of what was dropped.
 *
 * @param name the file's name, or several with their contents as a list
 */
export async function shortRows(
  folder: string,
  name: string | readonly string[],
  content: unknown,
  columnMapping: ColumnMapping = {},
  labelThreshold?: number,
) {
  const textOf = (value: unknown) =>
    typeof value === "string" || value instanceof Uint8Array ? value : JSON.stringify(value);
  const paths =
    typeof name === "string"
      ? [fileIn(folder, name, textOf(content))]
      : name.map((one, i) => fileIn(folder, one, textOf((content as readonly unknown[])[i])));
  let report: ExportReport | undefined;
  const options = {
    columnMapping,
    onWarning: () => {},
    onExport: (found: ExportReport) => {
      report = found;
    },
    ...(labelThreshold === undefined ? {} : { labelThreshold }),
  };
  const rows: (readonly [string, string, boolean])[] = [];
  for await (const row of feedbackRows(paths, options)) {
    if (!("promptMessages" in row)) throw new Error("a row of an export is no chat");
    const prompt = row.promptMessages.map(({ role, content: said }) => `${role}: ${said}`).join(" | ");
    rows.push([prompt, String(row.completionMessages[0]?.content), row.label]);
  }
  const dropped = report?.dropped.map(({ id, reason }) => `${id} ${reason}`) ?? [];
  return { rows, dropped, unrated: report?.unrated, shape: report?.shapes.join() };
}
