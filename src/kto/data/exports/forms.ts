/**
 * Messages in the forms in which programs send them to models and store them: lists of parts, OpenAI's messages and
 * answers, LangChain's serialised messages. A form that is not known gives an undefined text.
 */
import type { Reason, Turn } from "./types.ts";
import { fromCell, holds, isObject, listOf, member, textOr } from "./values.ts";

const roles: Readonly<Record<string, string>> = {
  system: "system",
  developer: "system",
  user: "user",
  human: "user",
  prompter: "user",
  assistant: "assistant",
  ai: "assistant",
  aimessagechunk: "assistant",
  model: "assistant",
  tool: "tool",
  function: "tool",
};

/** The role of a chat template for a speaker as programs name it. */
export function roleOf(speaker: unknown): string | undefined {
  const name = typeof speaker === "string" ? speaker.toLowerCase() : "";
  return Object.hasOwn(roles, name) ? roles[name] : undefined;
}

const textParts: readonly unknown[] = ["text", "input_text", "output_text"];
const thoughtParts: readonly unknown[] = ["think", "thinking", "reasoning", "redacted_thinking"];
const toolParts: readonly unknown[] = ["tool_call", "tool_use", "tool_result", "function_call", "tool-call"];
const filePart = /image|file|audio|video|document|component/;

/** What a content says: its text, undefined if its form is not known, and what speaks against it. */
export interface Content {
  readonly text: string | undefined;
  readonly faults: readonly Reason[];
}

/**
 * Reads a content: a text, nothing, or a list of parts. Thoughts are left out.
 *
 * @param join puts the texts of several parts together
 */
export function contentOf(content: unknown, join = (texts: readonly string[]) => texts.join("")): Content {
  if (typeof content === "string") return { text: content, faults: [] };
  if (content === null || content === undefined) return { text: "", faults: [] };
  const texts: string[] = [];
  const faults: Reason[] = [];
  let isKnown = true;
  for (const part of Array.isArray(content) ? content : [content]) {
    const type = member(part, "type");
    const text = typeof part === "string" ? part : member(part, "text");
    const said = typeof text === "string" ? text : member(text, "value");
    if (thoughtParts.includes(type)) continue;
    if (toolParts.includes(type)) faults.push("tool-call");
    else if (type === "error") faults.push("unfinished");
    else if (isFile(part, type)) faults.push("attachment");
    else if ((typeof part === "string" || textParts.includes(type)) && typeof said === "string") texts.push(said);
    else isKnown = false;
  }
  return { text: isKnown ? join(texts) : undefined, faults };
}

function isFile(part: unknown, type: unknown): boolean {
  if (typeof type === "string") return filePart.test(type);
  return ["file", "path", "component", "image_url"].some((name) => member(part, name) !== undefined);
}

/** One message of a chat; undefined if the value has none of the forms. */
export function messageOf(value: unknown): Turn | undefined {
  // LangChain: {"lc": 1, "type": "constructor", "id": [..., "HumanMessage"], "kwargs": {...}}
  const kwargs = member(value, "kwargs");
  if (isObject(kwargs)) {
    const name = textOr(listOf(member(value, "id")).at(-1), "").replace(/Message(Chunk)?$/, "");
    return messageFrom(name, kwargs);
  }
  if (!isObject(value) || !("content" in value || "tool_calls" in value)) return undefined;
  return messageFrom(value.role ?? value.type, value);
}

function messageFrom(speaker: unknown, fields: unknown): Turn | undefined {
  const role = roleOf(speaker);
  if (role === undefined) return undefined;
  const { text, faults } = contentOf(member(fields, "content"));
  const called = holds(member(fields, "tool_calls")) || isObject(member(fields, "function_call"));
  return { role, text, faults: called ? [...faults, "tool-call"] : faults };
}

/**
 * Reads what an application sent to a model or got from it: messages, an object that has them, a single message, an
 * answer with choices, or a text. A text that is JSON is read as what it says, if it is an object or a list.
 *
 * @param speaker the role of a text alone
 * @returns undefined if the value has none of the forms
 */
export function chatOf(value: unknown, speaker: "user" | "assistant", depth = 0): readonly Turn[] | undefined {
  if (depth > 4) return undefined;
  if (value === null || value === undefined) return speaker === "user" ? [] : [{ role: speaker, text: "" }];
  if (typeof value === "string") {
    const inside = fromCell(value);
    return isObject(inside) || Array.isArray(inside)
      ? chatOf(inside, speaker, depth + 1)
      : [{ role: speaker, text: value }];
  }
  if (Array.isArray(value)) {
    // LangChain's chat models take a list of conversations, of which there is one.
    if (value.length === 1 && Array.isArray(value[0])) return chatOf(value[0], speaker, depth + 1);
    const turns = value.map(messageOf).filter((turn) => turn !== undefined);
    return turns.length === value.length ? turns : undefined;
  }
  const message = messageOf(value);
  if (message !== undefined) return [message];
  const [choice] = listOf(member(value, "choices"));
  if (choice !== undefined) return answerOf(member(choice, "message"), member(choice, "finish_reason"));
  const generation = listOf(listOf(member(value, "generations"))[0])[0];
  if (generation !== undefined) {
    const reason = member(generation, "generation_info", "finish_reason");
    const said = member(generation, "message");
    return said === undefined ? chatOf(member(generation, "text"), speaker, depth + 1) : answerOf(said, reason);
  }
  const messages = member(value, "messages");
  return Array.isArray(messages) ? chatOf(messages, speaker, depth + 1) : undefined;
}

function answerOf(message: unknown, finishReason: unknown): readonly Turn[] | undefined {
  const turn = messageOf(message);
  if (turn === undefined) return undefined;
  // The limit of tokens ended the answer.
  return finishReason === "length" ? [{ ...turn, faults: [...(turn.faults ?? []), "truncated"] }] : [turn];
}

/**
 * The turns of a record that keeps the prompt apart from the answer.
 *
 * @returns "unreadable" if one of the two has no known form
 */
export function turnsOf(input: unknown, output: unknown): readonly Turn[] | Reason {
  const prompt = chatOf(input, "user");
  const answer = chatOf(output, "assistant");
  if (prompt === undefined || answer?.length !== 1) return "unreadable";
  return [...prompt, ...answer];
}
