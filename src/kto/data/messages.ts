/** Lists of chat messages as files give them: checked, in one form, and parted into prompt and completion. */
import { parseExactJson } from "../../engine/files/exact-json.ts";
import { DatasetError, errorMessage } from "../../errors.ts";
import { described } from "./records.ts";
import { type ChatMessage, placeOf, type RowSource } from "./types.ts";

/** Lists and objects within each other; templates and JSON writers recurse. */
const deepest = 64;

/** ShareGPT's names of the speakers. */
const shareGptRoles: Readonly<Record<string, string>> = {
  system: "system",
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
  bard: "assistant",
  assistant: "assistant",
  tool: "tool",
  function_response: "tool",
  observation: "tool",
};

/**
 * Messages from a list, from one message, or from either of them as JSON text.
 *
 * @param name of the field, for messages
 * @throws DatasetError for an empty list and for what is no message, with its position
 */
export function messagesOf(value: unknown, name: string, source: RowSource): ChatMessage[] {
  const given = typeof value === "string" ? parsed(value, name, source) : value;
  const list = Array.isArray(given) ? given : [given];
  if (list.length === 0) throw new DatasetError(`${placeOf(source)}: "${name}" is an empty list of messages.`);
  if (!Array.isArray(given) && (typeof given !== "object" || given === null)) {
    throw new DatasetError(`${placeOf(source)}: "${name}" is ${described(given)}, not a list of messages.`);
  }
  return list.map((message: unknown, i) => messageOf(message, `"${name}" at position ${i}`, source));
}

function messageOf(value: unknown, where: string, source: RowSource): ChatMessage {
  const refuse = (what: string) => new DatasetError(`${placeOf(source)}: ${where} ${what}.`);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw refuse(`is ${described(value)}, not a message with "role" and "content"`);
  }
  if (depthExceeds(value, deepest)) throw refuse(`is nested more than ${deepest} levels deep`);
  const fields = value as Readonly<Record<string, unknown>>;
  const { role, content } = fields;
  if (typeof role !== "string" || role === "") {
    throw refuse(`has ${role === undefined || role === null ? "no" : `${described(role)} as its`} "role"`);
  }
  const calls = fields.tool_calls !== undefined && fields.tool_calls !== null;
  if ((content === undefined || content === null) && !calls) throw refuse('has no "content"');
  if (content !== undefined && content !== null && typeof content !== "string" && !Array.isArray(content)) {
    throw refuse(`has ${described(content)} as its "content", which must be a text or a list of parts`);
  }
  // A null field says the same as no field; in tables, where every message has every field, it is the only way to.
  const message: Record<string, unknown> = { ...fields };
  for (const [key, item] of Object.entries(fields)) if (key !== "content" && item === null) delete message[key];
  return { ...message, role, content: content ?? null };
}

/** ShareGPT's list of { from, value } (or of { role, content }, as some such files have it). */
export function conversationOf(value: unknown, name: string, source: RowSource): ChatMessage[] {
  const list = typeof value === "string" ? parsed(value, name, source) : value;
  if (!Array.isArray(list)) return messagesOf(list, name, source);
  const messages = list.map((turn: unknown, i) => {
    if (typeof turn !== "object" || turn === null || !("from" in turn)) return turn;
    const { from, value: content, ...rest } = turn as Readonly<Record<string, unknown>>;
    const role = typeof from === "string" ? shareGptRoles[from.toLowerCase()] : undefined;
    if (role === undefined) {
      const known = Object.keys(shareGptRoles).join(", ");
      throw new DatasetError(
        `${placeOf(source)}: "${name}" at position ${i} is from ${described(from)}; speakers are ${known}.`,
      );
    }
    return { ...rest, role, content };
  });
  return messagesOf(messages, name, source);
}

/**
 * Parts a whole chat where its judged answer begins: with the first message of the assistant after the last one of the
 * user. What lies between (calls of tools and their results) belongs to the answer.
 *
 * @throws DatasetError if the chat does not end with the assistant, or has nothing before the answer
 */
export function partChat(
  messages: readonly ChatMessage[],
  name: string,
  source: RowSource,
): { promptMessages: ChatMessage[]; completionMessages: ChatMessage[] } {
  const last = messages.at(-1)?.role;
  if (last !== "assistant") {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" ends with a message of the role "${last}"; the last one must be the assistant's, since it is what was judged.`,
    );
  }
  const lastUser = messages.findLastIndex(({ role }) => role === "user");
  const start = messages.findIndex(({ role }, i) => i > lastUser && role === "assistant");
  if (start === 0) {
    throw new DatasetError(`${placeOf(source)}: "${name}" has no message before the assistant's answer.`);
  }
  return { promptMessages: messages.slice(0, start), completionMessages: messages.slice(start) };
}

/** Tools: a list, or one as JSON text; undefined where there are none. */
export function toolsOf(value: unknown, source: RowSource): readonly unknown[] | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const tools = typeof value === "string" ? parsed(value, "tools", source) : value;
  if (tools === null) return undefined;
  if (!Array.isArray(tools)) {
    throw new DatasetError(`${placeOf(source)}: "tools" is ${described(value)}, not a list of tools.`);
  }
  checkDepth(tools, "tools", source);
  return tools.length === 0 ? undefined : tools;
}

/** `chat_template_kwargs`: an object, or one as JSON text; undefined where there is none. */
export function templateOptionsOf(value: unknown, source: RowSource): Readonly<Record<string, unknown>> | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const options = typeof value === "string" ? parsed(value, "chat_template_kwargs", source) : value;
  if (options === null) return undefined;
  if (typeof options !== "object" || Array.isArray(options)) {
    throw new DatasetError(
      `${placeOf(source)}: "chat_template_kwargs" is ${described(value)}, not an object of the template's variables.`,
    );
  }
  checkDepth(options, "chat_template_kwargs", source);
  return options as Readonly<Record<string, unknown>>;
}

function checkDepth(value: unknown, name: string, source: RowSource): void {
  if (!depthExceeds(value, deepest)) return;
  throw new DatasetError(`${placeOf(source)}: "${name}" is nested more than ${deepest} levels deep.`);
}

function depthExceeds(value: unknown, limit: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return limit === 0 || Object.values(value).some((item) => depthExceeds(item, limit - 1));
}

/** JSON out of a cell of text. */
export function parsed(text: string, name: string, source: RowSource): unknown {
  try {
    return parseExactJson(text);
  } catch (error) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" is the text ${described(text)}, which is not valid JSON: ${errorMessage(error)}.`,
      { cause: error },
    );
  }
}
