/**
 * Records to rows: which of TRL's layouts a record has, and what it says. Pairs become two rows. Text stays text and is
 * never taken for a chat: only messages go through a chat template.
 */
import { DatasetError } from "../../errors.ts";
import { messagesOf, parsed, partChat, templateOptionsOf, toolsOf } from "./messages.ts";
import { described } from "./records.ts";
import {
  type ChatMessage,
  type FeedbackRow,
  type Fields,
  type FileRecord,
  type Labels,
  placeOf,
  type RowSource,
} from "./types.ts";

/** The columns of each layout. Where a row has those of several, the first counts, TRL's before others. */
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
/** Which layout a row was probably meant to have, where it lacks as many columns of one as of another. */
const likeliest: readonly Layout[] = ["binary", "messages", "conversations", "tokens", "implicitPair", "pair"];

/** What a row must have, for messages. */
const needed = {
  required:
    '"prompt", "completion" and "label", or "prompt", "chosen" and "rejected", or "messages" and "label", or "prompt_ids", "completion_ids" and "label"',
  optional:
    '"prompt" and "completion", or "messages", or "prompt_ids" and "completion_ids", all with a "label" or without, or "prompt", "chosen" and "rejected"',
} as const;

/** One record as rows. */
export interface RecordRows {
  /** For people, e.g. "conversational prompt/completion/label"; one file keeps one layout. */
  readonly layout: string;
  /** One row, or the chosen and the rejected one of a pair, which lack their pair's number. */
  readonly rows: readonly FeedbackRow[];
  readonly isPair: boolean;
}

/** @throws DatasetError naming file, line and field */
export function rowsOfRecord(
  { fields, source, textOnly = false }: FileRecord,
  labels: Labels = "required",
): RecordRows {
  const layout = layoutOf(fields, source, textOnly, labels);
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

function pairRows(fields: Fields, source: RowSource): RecordRows {
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
    // LLaMA-Factory's pairs: the chat up to the answers in a column of its own.
    parts = { prompt: chatBefore(chosen, wholeChat(fields, history, source), history, source), chosen, rejected };
    name = `${history}/chosen/rejected`;
  } else {
    // As in TRL, a prompt that is text beside whole chats is a copy of their beginning.
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

/** The chat of a column; LLaMA-Factory gives its system prompt beside it. */
function wholeChat(fields: Fields, name: "messages" | "conversations", source: RowSource): ChatMessage[] {
  const whole = messagesOf(field(fields, name, source), name, source);
  const { system } = fields;
  if (name === "messages" || !has(fields, "system") || system === "" || whole[0]?.role === "system") return whole;
  return [{ role: "system", content: text(fields, "system", source) }, ...whole];
}

/** A chat without the chosen answer at its end, if it has that. */
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

/** The beginning that two texts share is the prompt; a space before the answers belongs to them. */
function partTexts(chosen: string, rejected: string, source: RowSource) {
  const shortest = Math.min(chosen.length, rejected.length);
  let length = 0;
  // Neither answer may be left empty, also where one text begins with the whole other.
  while (length < shortest - 1 && chosen[length] === rejected[length]) length++;
  if (chosen[length - 1] === " ") length--;
  // No half of a character that takes two code units.
  if (/[\ud800-\udbff]/.test(chosen[length - 1] ?? "")) length--;
  if (length <= 0) throw noSharedPrompt(source);
  return { prompt: chosen.slice(0, length), chosen: chosen.slice(length), rejected: rejected.slice(length) };
}

/** The messages with which two chats begin alike are the prompt. */
function partChats(chosen: readonly ChatMessage[], rejected: readonly ChatMessage[], source: RowSource) {
  const shortest = Math.min(chosen.length, rejected.length);
  let length = 0;
  while (length < shortest - 1 && sameMessage(chosen[length], rejected[length])) length++;
  if (length === 0) throw noSharedPrompt(source);
  return { prompt: chosen.slice(0, length), chosen: chosen.slice(length), rejected: rejected.slice(length) };
}

function sameMessage(a: ChatMessage | undefined, b: ChatMessage | undefined): boolean {
  const sorted = (message: ChatMessage | undefined) => JSON.stringify(Object.entries(message ?? {}).sort());
  return sorted(a) === sorted(b);
}

function noSharedPrompt(source: RowSource): DatasetError {
  return new DatasetError(
    `${placeOf(source)}: "chosen" and "rejected" do not begin alike, so no prompt can be taken from them; give a "prompt" of the same kind as they are (text or messages).`,
  );
}

/** The layout whose columns a row has, or of which it lacks the fewest. */
function layoutOf(fields: Fields, source: RowSource, textOnly: boolean, labels: Labels): Layout {
  const columns = (layout: Layout) => layouts[layout].filter((name) => name !== "label" || labels === "required");
  // Cells of csv are there in every row: first those count that hold something, then an empty text is one too.
  const lacking = (layout: Layout, isThere: (fields: Fields, name: string, textOnly: boolean) => boolean) =>
    columns(layout).filter((name) => !isThere(fields, name, textOnly)).length;
  const whole =
    layoutNames.find((layout) => lacking(layout, isPresent) === 0) ??
    layoutNames.find((layout) => lacking(layout, isText) === 0);
  if (whole !== undefined) return whole;
  const begun = likeliest.filter((layout) =>
    layouts[layout].some((name) => name !== "label" && isText(fields, name, textOnly)),
  );
  const [nearest] = begun.sort((a, b) => lacking(a, isText) - lacking(b, isText));
  if (nearest !== undefined) return nearest;
  const found = Object.keys(fields)
    .slice(0, 20)
    .map((name) => `"${name}"`);
  throw new DatasetError(
    `${placeOf(source)}: no layout of feedback fits the fields ${found.length > 0 ? found.join(", ") : "of an empty row"}; a row needs ${needed[labels]} (column_mapping reads them from columns of other names).`,
  );
}

function has(fields: Fields, name: string): boolean {
  return fields[name] !== undefined && fields[name] !== null;
}

/** There, and in csv not an empty cell. */
function isPresent(fields: Fields, name: string, textOnly: boolean): boolean {
  return has(fields, name) && !(textOnly && String(fields[name]).trim() === "");
}

/** There, and in csv not an empty cell of a column that has no texts. */
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
      name === "label" ? " (kto sft trains on rows without labels, kto data --labels optional shows them)" : "";
    throw new DatasetError(`${placeOf(source)}: the field "${name}" is missing${remedy}.`);
  }
  return value;
}

function text(fields: Fields, name: string, source: RowSource): string {
  const value = field(fields, name, source);
  if (typeof value !== "string") {
    throw new DatasetError(`${placeOf(source)}: "${name}" is ${described(value)}, not a text.`);
  }
  return value;
}

/** Messages where another field of the row has messages, so that text is a mistake. */
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

function checkAnswer(answer: readonly ChatMessage[], name: string, source: RowSource): void {
  const role = answer.at(-1)?.role;
  if (role === "assistant") return;
  throw new DatasetError(
    `${placeOf(source)}: "${name}" ends with a message of the role "${role}"; the last one must be the assistant's, since it is what was judged.`,
  );
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
    `${placeOf(source)}: "label" is ${described(value)}; it must be true (desirable) or false (undesirable).`,
  );
}

function tokenIds(fields: Fields, name: string, source: RowSource): number[] {
  const given = field(fields, name, source);
  const value = typeof given === "string" && given.startsWith("[") ? parsed(given, name, source) : given;
  if (!Array.isArray(value)) {
    throw new DatasetError(`${placeOf(source)}: "${name}" is ${described(value)}, not a list of token ids.`);
  }
  const wrong = value.findIndex((id) => !Number.isSafeInteger(id) || id < 0);
  if (wrong >= 0) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" has ${described(value[wrong])} at position ${wrong}; token ids are whole numbers from 0.`,
    );
  }
  return value;
}
