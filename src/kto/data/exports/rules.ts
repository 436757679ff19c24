/** Whether a rating gives a row, and which: the rules that hold for all programs. */
import { withoutReasoning } from "./reasoning.ts";
import { type ExportRow, type Rating, type Reason, type RowMessage, reasons, type Turn } from "./types.ts";

/** What speaks against a row also where it stands in a turn before the answer. Other faults are of answers only. */
const pathFaults: readonly Reason[] = ["deleted", "attachment", "context-missing"];

/** A row, or the reason why there is none. */
export type RowOrReason =
  | { readonly row: ExportRow; readonly cites: boolean; readonly reason?: undefined }
  | { readonly reason: Reason; readonly row?: undefined };

/**
 * @param found what other records say about this one (`ledger.ts`)
 */
export function rowOfRating(rating: Rating, found: readonly Reason[]): RowOrReason {
  // Nothing comes before "superseded", so that the turns need not be read.
  if (found.includes("superseded")) return { reason: "superseded" };
  const faults = new Set<Reason>([...found, ...(rating.faults ?? [])]);
  if (typeof rating.thumb !== "boolean") faults.add(rating.thumb);
  const turns = rating.turns();
  if (typeof turns === "string") faults.add(turns);
  const read = typeof turns === "string" ? undefined : readTurns(turns, faults);
  const reason = reasons.find((one) => faults.has(one));
  if (reason !== undefined || read === undefined || typeof rating.thumb !== "boolean") {
    return { reason: reason ?? "answer-missing" };
  }
  const { prompt, answer, cites } = read;
  return { row: { prompt, completion: [{ role: "assistant", content: answer }], label: rating.thumb }, cites };
}

/** Texts as the row has them. Adds what speaks against the row to `faults`. */
function readTurns(turns: readonly Turn[], faults: Set<Reason>) {
  const last = turns.at(-1);
  if (last === undefined) {
    faults.add("answer-missing");
    return undefined;
  }
  if (last.role !== "assistant") faults.add("not-an-answer");
  if (turns.at(-2)?.role !== "user") faults.add("broken-path");
  for (const fault of last.faults ?? []) faults.add(fault);
  const prompt: RowMessage[] = [];
  for (let i = 0; i < turns.length - 1; i++) {
    const message = readEarlier(turns[i] ?? last, faults);
    if (message !== undefined) prompt.push(message);
  }
  const { text, isThinking, hasTools } = withoutReasoning(last.text ?? "");
  if (last.text === undefined) faults.add("unreadable");
  if (isThinking) faults.add("unfinished");
  if (hasTools) faults.add("tool-call");
  if (text === "") faults.add("empty");
  return { prompt, answer: text, cites: last.cites === true || /\[\d+\]/.test(text) };
}

/** A message before the answer; undefined for a system message that says nothing. */
function readEarlier({ role, text, faults: own = [] }: Turn, faults: Set<Reason>): RowMessage | undefined {
  for (const fault of own) if (pathFaults.includes(fault)) faults.add(fault);
  if (role === "tool") faults.add("tool-call");
  if (role === undefined || text === undefined) {
    faults.add("unreadable");
    return undefined;
  }
  const content = role === "assistant" ? withoutReasoning(text).text : text;
  if (content.trim() !== "") return { role, content };
  if (role !== "system") faults.add("empty");
  return undefined;
}
