/** Reads lists of chat messages in the forms that files use, checks them, and splits them into prompt and answer. */
import { parseExactJson } from "../../engine/files/exact-json.ts";
import { depthExceeds, isJsonObject } from "../../engine/files/json-file.ts";
import { DatasetError, errorMessage } from "../../errors.ts";
import { described } from "./records.ts";
import { type ChatMessage, placeOf, type RowSource } from "./types.ts";

/** The deepest nesting of lists and objects in a message. Templates and JSON writers recurse over it. */
const deepest = 64;

/** Maps the speakers of ShareGPT and LLaMA-Factory to the roles of chat templates. */
const shareGptRoles: Readonly<Record<string, string>> = {
  system: "system",
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
  bard: "assistant",
  assistant: "assistant",
  function_call: "assistant",
  tool: "tool",
  function_response: "tool",
  observation: "tool",
};

/**
 * Reads a list of messages, or a single message, given as values or as JSON text. A message has "role" and "content",
 * or ShareGPT's "from" and "value". The value of a function_call, which is JSON, becomes the message's tool_calls.
 *
 * @param name the field's name, for error messages
 * @throws DatasetError for an empty list, and for an item that is not a message, naming its position
 */
export function messagesOf(value: unknown, name: string, source: RowSource): ChatMessage[] {
  const given = typeof value === "string" ? parsed(value, name, source) : value;
  const list = Array.isArray(given) ? given : [given];
  if (list.length === 0)
    throw new DatasetError(`${placeOf(source)}: "${name}" is an empty list of messages; give at least one.`);
  if (!Array.isArray(given) && (typeof given !== "object" || given === null)) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" is ${described(given)}, not a list of messages; give a list of objects with "role" and "content".`,
    );
  }
  return list.map((message: unknown, i) => messageOf(message, `"${name}" at position ${i}`, source));
}

function messageOf(value: unknown, where: string, source: RowSource): ChatMessage {
  const refuse = (what: string) => new DatasetError(`${placeOf(source)}: ${where} ${what}.`);
  if (!isJsonObject(value)) throw refuse(`is ${described(value)}, not a message with "role" and "content"`);
  if (depthExceeds(value, deepest)) throw refuse(`is nested more than ${deepest} levels deep; make it flatter`);
  const fields = withRole(value, where, source);
  const { role, content } = fields;
  if (typeof role !== "string" || role === "") {
    const found = role === undefined || role === null ? "no" : `${described(role)} as its`;
    throw refuse(`has ${found} "role"; give "system", "user", "assistant" or "tool"`);
  }
  const calls = fields.tool_calls !== undefined && fields.tool_calls !== null;
  if ((content === undefined || content === null) && !calls) {
    throw refuse('has no "content"; give a text, which may be empty');
  }
  if (content !== undefined && content !== null && typeof content !== "string" && !Array.isArray(content)) {
    throw refuse(`has ${described(content)} as its "content", which must be a text or a list of parts`);
  }
  const part = Array.isArray(content) ? content.find(isBrokenPart) : undefined;
  if (part !== undefined) {
    throw refuse(`has ${described(part)} in its "content", a part of the type "text" whose "text" is not a string`);
  }
  // A null field means no field: in a table every message has every column, and null is the only way to leave one out.
  const message: Record<string, unknown> = { ...fields };
  for (const [key, item] of Object.entries(fields)) if (key !== "content" && item === null) delete message[key];
  return { ...message, role, content: content ?? null };
}

function isBrokenPart(part: unknown): boolean {
  if (typeof part !== "object" || part === null || !("type" in part) || part.type !== "text") return false;
  return !("text" in part) || typeof part.text !== "string";
}

/** Renames the fields of a ShareGPT message; other messages are returned unchanged. */
function withRole(fields: Readonly<Record<string, unknown>>, where: string, source: RowSource) {
  const { from, value, ...rest } = fields;
  if (from === undefined || from === null || (rest.role !== undefined && rest.role !== null)) return fields;
  const role = typeof from === "string" ? shareGptRoles[from.toLowerCase()] : undefined;
  if (role === undefined) {
    const known = Object.keys(shareGptRoles).join(", ");
    throw new DatasetError(`${placeOf(source)}: ${where} is from ${described(from)}; speakers are ${known}.`);
  }
  if (String(from).toLowerCase() !== "function_call") return { ...rest, role, content: value };
  return { ...rest, role, content: "", tool_calls: callsOf(value, where, source) };
}

/** Reads a tool call, or a list of them, given as JSON text or as objects. */
function callsOf(value: unknown, where: string, source: RowSource): object[] {
  let given = value;
  try {
    if (typeof value === "string") given = parseExactJson(value);
  } catch {
    // Text that is not JSON is not a call either; the error below says so.
  }
  return (Array.isArray(given) ? given : [given]).map((call: unknown) => {
    const { name, arguments: args } = isJsonObject(call) ? call : {};
    if (typeof name === "string" && args !== undefined)
      return { type: "function", function: { name, arguments: args } };
    throw new DatasetError(
      `${placeOf(source)}: ${where} is from "function_call", but its value is ${described(value)}; it must be JSON with "name" and "arguments", or a list of such.`,
    );
  });
}

/**
 * Splits a whole chat where its judged answer begins: at the first assistant message after the last user message. Tool
 * calls and their results belong to the answer.
 *
 * @throws DatasetError if the chat does not end with the assistant, or has nothing before the answer
 */
export function partChat(
  messages: readonly ChatMessage[],
  name: string,
  source: RowSource,
): { promptMessages: ChatMessage[]; completionMessages: ChatMessage[] } {
  checkAnswer(messages, name, source);
  const lastUser = messages.findLastIndex(({ role }) => role === "user");
  const start = messages.findIndex(({ role }, i) => i > lastUser && role === "assistant");
  if (start === 0) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" has no message before the assistant's answer; begin the chat with the user's message.`,
    );
  }
  return { promptMessages: messages.slice(0, start), completionMessages: messages.slice(start) };
}

/** @throws DatasetError if the messages do not end with the assistant's */
export function checkAnswer(messages: readonly ChatMessage[], name: string, source: RowSource): void {
  const role = messages.at(-1)?.role;
  if (role === "assistant") return;
  throw new DatasetError(
    `${placeOf(source)}: "${name}" ends with a message of the role "${role}"; the last one must be the assistant's, since it is what was judged.`,
  );
}

/** Reads the "tools" column, a list or its JSON text. Returns undefined if there are no tools. */
export function toolsOf(value: unknown, source: RowSource): readonly unknown[] | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const tools = typeof value === "string" ? parsed(value, "tools", source) : value;
  if (tools === null) return undefined;
  if (!Array.isArray(tools)) {
    throw new DatasetError(
      `${placeOf(source)}: "tools" is ${described(value)}, not a list of tools; give a list of their schemas.`,
    );
  }
  checkDepth(tools, "tools", source);
  return tools.length === 0 ? undefined : tools;
}

/** Reads the "chat_template_kwargs" column, an object or its JSON text. Returns undefined if there is none. */
export function templateOptionsOf(value: unknown, source: RowSource): Readonly<Record<string, unknown>> | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const options = typeof value === "string" ? parsed(value, "chat_template_kwargs", source) : value;
  if (options === null) return undefined;
  if (!isJsonObject(options)) {
    throw new DatasetError(
      `${placeOf(source)}: "chat_template_kwargs" is ${described(value)}, not an object; give the template's variables as an object.`,
    );
  }
  checkDepth(options, "chat_template_kwargs", source);
  return options;
}

function checkDepth(value: unknown, name: string, source: RowSource): void {
  if (!depthExceeds(value, deepest)) return;
  throw new DatasetError(`${placeOf(source)}: "${name}" is nested more than ${deepest} levels deep; make it flatter.`);
}

/** Parses a field that holds JSON as text. */
export function parsed(text: string, name: string, source: RowSource): unknown {
  try {
    return parseExactJson(text);
  } catch (error) {
    throw new DatasetError(
      `${placeOf(source)}: "${name}" is the text ${described(text)}, which is not valid JSON (${errorMessage(error)}); correct it, or give the value itself.`,
      { cause: error },
    );
  }
}
