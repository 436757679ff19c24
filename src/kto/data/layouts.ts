/**
 * Turns a record of a file into rows of feedback: finds which layout the record has and reads its columns. A preference
 * pair becomes two rows. Text is never treated as a chat; only messages go through a chat template.
 */
import { exactMember } from "../../engine/files/exact-json.ts";
import { DatasetError } from "../../errors.ts";
import { exportsLookedFor } from "./exports/shapes.ts";
import { checkAnswer, messagesOf, parsed, partChat, templateOptionsOf, toolsOf } from "./messages.ts";
import { describedMember } from "./records.ts";
import {
  type ChatMessage,
  type FeedbackRow,
  type Fields,
  type FileRecord,
  type Labels,
  placeOf,
  type RowSource,
} from "./types.ts";
import { unreadColumns } from "./unread.ts";

/** The columns of each layout. If a row has the columns of several layouts, the first in this order is used. */
const layouts = {
  pair: ["prompt", "chosen", "rejected"],
  implicitPair: ["chosen", "rejected"],
  tokens: ["prompt_ids", "completion_ids", "label"],
  binary: ["prompt", "completion", "label"],
  messages: ["messages", "label"],
  conversations: ["conversations", "label"],
} as const satisfies Record<string, readonly string[]>;
type Layout = keyof typeof layouts;
const layoutNames = Object.keys(layouts) as Layout[];
/** Breaks the tie for an error message when a row lacks equally many columns of several layouts. */
const likeliest: readonly Layout[] = ["binary", "messages", "conversations", "tokens", "implicitPair", "pair"];

/** The columns a row needs, as an error message lists them. */
const needed = {
  required:
    '"prompt", "completion" and "label", or "prompt", "chosen" and "rejected", or "messages" and "label", or "prompt_ids", "completion_ids" and "label"',
  optional:
    '"prompt" and "completion", or "messages", or "prompt_ids" and "completion_ids", all with a "label" or without, or "prompt", "chosen" and "rejected"',
} as const;

/** The rows made from one record. */
export interface RecordRows {
  /** A name to display, such as "conversational prompt/completion/label". All rows of a file share one layout. */
  readonly layout: string;
  /** One row, or the chosen and the rejected row of a pair. The caller numbers the pairs. */
  readonly rows: readonly FeedbackRow[];
  readonly isPair: boolean;
  /** Known columns that hold something and that this layout does not use. */
  readonly unread: readonly string[];
}

type LayoutRows = Omit<RecordRows, "unread">;

/**
 * Reads a record in the layout that its columns have.
 *
 * @throws DatasetError naming file, line and field
 */
export function rowsOfRecord(record: FileRecord, labels: Labels = "required"): RecordRows {
  const { fields, source, textOnly = false } = record;
  const found = layoutOf(fields, source, textOnly, labels);
  const made = rowsOfLayout(found, record, labels);
  const whole = layoutNames.filter((other) => lacking(fields, other, isPresent, textOnly, labels) === 0);
  const isChat = made.rows.some((row) => "promptMessages" in row);
  const columns = whole.flatMap((other) => [...layouts[other]]);
  return { ...made, unread: unreadColumns(fields, made.layout, columns, isChat) };
}

function rowsOfLayout(layout: Layout, { fields, source, textOnly = false }: FileRecord, labels: Labels): LayoutRows {
  const unlabelled = labels === "optional" && !isPresent(fields, "label", textOnly);
  const named = layouts[layout].filter((name) => !(unlabelled && name === "label")).join("/");
  const single = (row: FeedbackRow, name = named) => ({ layout: name, rows: [row], isPair: false });
  const common = () => ({ label: unlabelled || thumb(fields, source, textOnly), source });
  switch (layout) {
    case "tokens": {
      const promptIds = tokenIds(fields, "prompt_ids", source);
      const completionIds = tokenIds(fields, "completion_ids", source);
      return single({ promptIds, completionIds, ...common() });
    }
    case "messages":
    case "conversations": {
      const whole = wholeChat(fields, layout, source);
      return single({ ...partChat(whole, layout, source), ...chatOptions(fields, source), ...common() });
    }
    case "binary": {
      if (!isConversational(fields, ["prompt", "completion"])) {
        const prompt = text(fields, "prompt", source);
        return single({ prompt, completion: text(fields, "completion", source), ...common() });
      }
      const promptMessages = messages(fields, "prompt", source);
      const completionMessages = completion(fields, "completion", source);
      const row = { promptMessages, completionMessages, ...chatOptions(fields, source), ...common() };
      return single(row, `conversational ${named}`);
    }
    case "pair":
    case "implicitPair":
      return pairRows(fields, source);
  }
}

function pairRows(fields: Fields, source: RowSource): LayoutRows {
  const labels = [true, false] as const;
  const hasPrompt = has(fields, "prompt");
  const history = (["conversations", "messages"] as const).find((name) => has(fields, name));
  const isChat = isConversational(fields, ["chosen", "rejected"]) || Array.isArray(fields.prompt);
  if (!isChat && (hasPrompt || history === undefined)) {
    const given = { chosen: text(fields, "chosen", source), rejected: text(fields, "rejected", source) };
    const { prompt, chosen, rejected } = hasPrompt
      ? { ...given, prompt: text(fields, "prompt", source) }
      : partTexts(given.chosen, given.rejected, source);
    const rows = labels.map((label) => ({ prompt, completion: label ? chosen : rejected, label, source }));
    return { layout: `${hasPrompt ? "prompt/" : ""}chosen/rejected`, rows, isPair: true };
  }
  const chosen = messages(fields, "chosen", source);
  const rejected = messages(fields, "rejected", source);
  const answersAlone = [chosen, rejected].every(([first]) => first?.role === "assistant");
  let parts: { prompt: readonly ChatMessage[]; chosen: readonly ChatMessage[]; rejected: readonly ChatMessage[] };
  let name = hasPrompt ? "prompt/chosen/rejected" : "chosen/rejected";
  if (hasPrompt && typeof fields.prompt !== "string") {
    parts = { prompt: messages(fields, "prompt", source), chosen, rejected };
  } else if (answersAlone && history !== undefined) {
    // LLaMA-Factory keeps the chat before the two answers in its own column.
    parts = { prompt: chatBefore(chosen, wholeChat(fields, history, source), history, source), chosen, rejected };
    name = `${history}/chosen/rejected`;
  } else {
    // As in TRL, a text prompt beside two whole chats repeats how they begin and is not needed.
    parts = partChats(chosen, rejected, source);
  }
  checkAnswer(parts.chosen, "chosen", source);
  checkAnswer(parts.rejected, "rejected", source);
  const options = chatOptions(fields, source);
  const rows = labels.map((label) => {
    const completionMessages = label ? parts.chosen : parts.rejected;
    return { promptMessages: parts.prompt, completionMessages, ...options, label, source };
  });
  return { layout: `conversational ${name}`, rows, isPair: true };
}

/** Reads the chat of a column. For "conversations", LLaMA-Factory's "system" column holds its system prompt. */
function wholeChat(fields: Fields, name: "messages" | "conversations", source: RowSource): ChatMessage[] {
  const whole = messagesOf(field(fields, name, source), name, source);
  const { system } = fields;
  if (name === "messages" || !has(fields, "system") || system === "" || whole[0]?.role === "system") return whole;
  return [{ role: "system", content: text(fields, "system", source) }, ...whole];
}

/** Removes the chosen answer from the end of a chat, if the chat includes it. */
function chatBefore(
  chosen: readonly ChatMessage[],
  whole: readonly ChatMessage[],
  name: string,
  source: RowSource,
): readonly ChatMessage[] {
  if (whole.at(-1)?.role !== "assistant") return whole;
  const start = whole.length - chosen.length;
  if (start > 0 && chosen.every((message, i) => sameMessage(message, whole[start + i]))) return whole.slice(0, start);
  throw new DatasetError(
    `${placeOf(source)}: "${name}" ends with an answer that is not the one in "chosen"; end it before the answers.`,
  );
}

/** Takes the common beginning of two texts as the prompt. A space before the answers belongs to the answers. */
function partTexts(chosen: string, rejected: string, source: RowSource) {
  const shortest = Math.min(chosen.length, rejected.length);
  let length = 0;
  // Stop one character early, so that neither answer is empty if one text begins with the other.
  while (length < shortest - 1 && chosen[length] === rejected[length]) length++;
  if (chosen[length - 1] === " ") length--;
  // Do not split a character that takes two UTF-16 code units.
  if (/[\ud800-\udbff]/.test(chosen[length - 1] ?? "")) length--;
  if (length <= 0) throw noSharedPrompt(source);
  return { prompt: chosen.slice(0, length), chosen: chosen.slice(length), rejected: rejected.slice(length) };
}

/** Takes the messages that two chats have in common at their beginning as the prompt. */
function partChats(chosen: readonly ChatMessage[], rejected: readonly ChatMessage[], source: RowSource) {
  const shortest = Math.min(chosen.length, rejected.length);
  let length = 0;
  while (length < shortest - 1 && sameMessage(chosen[length], rejected[length])) length++;
  if (length === 0) throw noSharedPrompt(source);
  return { prompt: chosen.slice(0, length), chosen: chosen.slice(length), rejected: rejected.slice(length) };
}

function sameMessage(a: ChatMessage | undefined, b: ChatMessage | undefined): boolean {
  // In whatever order the two have their keys: answers are often written by other programs than prompts.
  const members = (message: ChatMessage) =>
    Object.keys(message)
      .sort()
      .map((key) => `${JSON.stringify(key)}:${exactMember(message, key)}`);
  return a !== undefined && b !== undefined && members(a).join() === members(b).join();
}

function noSharedPrompt(source: RowSource): DatasetError {
  return new DatasetError(
    `${placeOf(source)}: "chosen" and "rejected" do not begin alike, so no prompt can be taken from them; give a "prompt" of the same kind as they are (text or messages).`,
  );
}

type IsThere = (fields: Fields, name: string, textOnly: boolean) => boolean;

/** How many columns of a layout a row lacks. */
function lacking(fields: Fields, layout: Layout, isThere: IsThere, textOnly: boolean, labels: Labels): number {
  const columns = layouts[layout].filter((name) => name !== "label" || labels === "required");
  return columns.filter((name) => !isThere(fields, name, textOnly)).length;
}

/** The layout all of whose columns a row has or, if there is none, the one of which it lacks the fewest. */
function layoutOf(fields: Fields, source: RowSource, textOnly: boolean, labels: Labels): Layout {
  const lacks = (layout: Layout, isThere: IsThere) => lacking(fields, layout, isThere, textOnly, labels);
  // In csv every row has every cell, so empty cells count as missing first, and as empty texts only if nothing fits.
  const whole =
    layoutNames.find((layout) => lacks(layout, isPresent) === 0) ??
    layoutNames.find((layout) => lacks(layout, isText) === 0);
  if (whole !== undefined) return whole;
  const begun = likeliest.filter((layout) =>
    layouts[layout].some((name) => name !== "label" && isText(fields, name, textOnly)),
  );
  const [nearest] = begun.sort((a, b) => lacks(a, isText) - lacks(b, isText));
  if (nearest !== undefined) return nearest;
  const found = Object.keys(fields)
    .slice(0, 20)
    .map((name) => `"${name}"`);
  throw new DatasetError(
    `${placeOf(source)}: no layout of feedback fits the fields ${found.length > 0 ? found.join(", ") : "of an empty row"}; a row needs ${needed[labels]} (column_mapping reads them from columns of other names), or the fields of an export of a chat program; looked for were ${exportsLookedFor}.`,
  );
}

function has(fields: Fields, name: string): boolean {
  return fields[name] !== undefined && fields[name] !== null;
}

/** Whether a row has a column; an empty csv cell counts as missing. */
function isPresent(fields: Fields, name: string, textOnly: boolean): boolean {
  return has(fields, name) && !(textOnly && String(fields[name]).trim() === "");
}

/** Whether a row has a column; an empty csv cell counts as an empty text where the column holds texts. */
function isText(fields: Fields, name: string, textOnly: boolean): boolean {
  return has(fields, name) && (texts.includes(name) || isPresent(fields, name, textOnly));
}

/** The columns in which an empty text is a text. */
const texts: readonly string[] = ["prompt", "completion", "chosen", "rejected"];

function isConversational(fields: Fields, names: readonly string[]): boolean {
  return names.some((name) => typeof fields[name] === "object" && fields[name] !== null);
}

function field(fields: Fields, name: string, source: RowSource): unknown {
  const value = fields[name];
  if (value === undefined || value === null) {
    const remedy =
      name === "label"
        ? "kto sft trains on rows without labels, and kto data --labels optional shows them"
        : "add it, or read it from a column of another name (column_mapping)";
    throw new DatasetError(`${placeOf(source)}: the field "${name}" is missing; ${remedy}.`);
  }
  return value;
}

function text(fields: Fields, name: string, source: RowSource): string {
  const value = field(fields, name, source);
  if (typeof value !== "string") {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" is ${describedMember(fields, name)}, not a text; give a text (column_mapping reads it from another column).`,
    );
  }
  return value;
}

/** Reads messages in a row whose other fields are messages, so that a text here is a mistake. */
function messages(fields: Fields, name: string, source: RowSource): ChatMessage[] {
  const value = field(fields, name, source);
  if (typeof value === "string") {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" is a text, but other fields of the row are chat messages; give all of them as messages or all as text.`,
    );
  }
  return messagesOf(value, name, source);
}

function completion(fields: Fields, name: string, source: RowSource): ChatMessage[] {
  const answer = messages(fields, name, source);
  checkAnswer(answer, name, source);
  return answer;
}

function chatOptions(fields: Fields, source: RowSource) {
  const tools = toolsOf(fields.tools, source);
  const templateOptions = templateOptionsOf(fields.chat_template_kwargs, source);
  return { ...(tools ? { tools } : {}), ...(templateOptions ? { templateOptions } : {}) };
}

function thumb(fields: Fields, source: RowSource, textOnly: boolean): boolean {
  const value = field(fields, "label", source);
  if (value === true || value === 1) return true;
  if (value === false || value === 0) return false;
  const word = textOnly && typeof value === "string" ? value.trim().toLowerCase() : "";
  // The words that spreadsheets and data frames write for a boolean.
  if (["true", "1", "1.0"].includes(word)) return true;
  if (["false", "0", "0.0"].includes(word)) return false;
  throw new DatasetError(
    `${placeOf(source)}: "label" is ${describedMember(fields, "label")}; it must be true (desirable) or false (undesirable).`,
  );
}

function tokenIds(fields: Fields, name: string, source: RowSource): number[] {
  const given = field(fields, name, source);
  const value = typeof given === "string" && given.startsWith("[") ? parsed(given, name, source) : given;
  if (!Array.isArray(value)) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" is ${describedMember(fields, name)}, not a list of token ids; give a list of whole numbers.`,
    );
  }
  const wrong = value.findIndex((id) => !Number.isSafeInteger(id) || id < 0);
  if (wrong >= 0) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" has ${describedMember(value, String(wrong))} at position ${wrong}; token ids are whole numbers from 0.`,
    );
  }
  return value;
}
