/**
 * The text of a row: JSON of all that its token ids depend on, with numbers as they stand in the file. The cache of ids
 * hashes this text. Threads that encode rows get it in place of the row, because a message to a thread would lose the
 * notes on how numbers were written (`exact-json.ts`).
 */
import { exactText, parseExactJson } from "../../engine/files/exact-json.ts";
import type { ChatMessage, FeedbackRow } from "./types.ts";

/** One line of JSON; undefined for rows of token ids, which depend on nothing. */
export function textOfRow(row: FeedbackRow): string | undefined {
  if ("promptIds" in row) return undefined;
  if ("prompt" in row) return exactText([row.prompt, row.completion]);
  return exactText([row.promptMessages, row.completionMessages, row.tools ?? null, row.templateOptions ?? null]);
}

/** A row with the same ids. Label and place in the file are not those of the row. */
export function rowOfText(text: string): FeedbackRow {
  const [prompt, completion, tools, templateOptions] = parseExactJson(text) as unknown[];
  const rest = { label: true, source: { file: "", line: 0 } };
  if (typeof prompt === "string") return { prompt, completion: String(completion), ...rest };
  return {
    promptMessages: prompt as ChatMessage[],
    completionMessages: completion as ChatMessage[],
    ...(tools === null ? {} : { tools: tools as readonly unknown[] }),
    ...(templateOptions === null ? {} : { templateOptions: templateOptions as Record<string, unknown> }),
    ...rest,
  };
}
