/**
 * A row as one line of JSON. It holds everything on which the row's token ids depend, and its numbers are written as
 * they are written in the file (`exact-json.ts` keeps how: 1.0 is not 1 to a chat template). The cache of token ids is
 * found by a hash of this line. Threads that encode rows are sent the line and not the row, since an object that is
 * sent to a thread loses how its numbers were written.
 */
import { exactText, parseExactJson } from "../../engine/files/exact-json.ts";
import type { ChatMessage, FeedbackRow } from "./types.ts";

/** The line of a row; undefined for a row that has its token ids already. */
export function textOfRow(row: FeedbackRow): string | undefined {
  if ("promptIds" in row) return undefined;
  if ("prompt" in row) return exactText([row.prompt, row.completion]);
  return exactText([row.promptMessages, row.completionMessages, row.tools ?? null, row.templateOptions ?? null]);
}

/** A row that gets the same token ids as the one of this line. Its label and its place in the file are made up. */
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
