/**
 * Contents that are lists of parts, for templates that want text. Most chat templates write `message.content` as it is; those
 * of models with images go through its parts. Which of the two a template is cannot be asked of it, so it is tried: it
 * takes parts if it writes the text of a part and not the part. (vLLM looks for a loop over the content in the
 * template's syntax; that misses loops in macros and takes `content.split()` for one.)
 */
import type { ChatTemplate } from "../../engine/text/chat-template.ts";
import { DatasetError, ModelFormatError } from "../../errors.ts";
import { described } from "./records.ts";
import { type ChatMessage, placeOf, type RowSource } from "./types.ts";

/** Letters that a template that trims or changes case leaves alone. */
const probe = "qzxprobeqzx";

/**
 * A function that gives messages as the template takes them: parts that are all text are joined where it wants text.
 *
 * @throws DatasetError naming row, message and part, where a part is not text and the template wants text
 */
export function partJoiner(
  template: ChatTemplate,
): (messages: readonly ChatMessage[], name: string, source: RowSource) => readonly ChatMessage[] {
  const known = new Map<string, boolean>();
  const takesParts = (role: string): boolean => {
    const found = known.get(role) ?? triesParts(template, role, role === "user" || takesParts("user"));
    known.set(role, found);
    return found;
  };
  return (messages, name, source) =>
    messages.map((message, i) => {
      const { role, content } = message;
      if (!Array.isArray(content) || takesParts(["system", "assistant"].includes(role) ? role : "user")) return message;
      const where = `${placeOf(source)}: message ${i + 1} (${role}) of the ${name}`;
      return { ...message, content: content.map((part) => textOf(part, where, template)).join("") };
    });
}

function textOf(part: unknown, where: string, template: ChatTemplate): string {
  if (typeof part === "string") return part;
  const { type, text } = (part ?? {}) as { readonly type?: unknown; readonly text?: unknown };
  if ((type === "text" || type === undefined) && typeof text === "string") return text;
  throw new DatasetError(
    `${where} has ${described(part)} in its "content", and the chat template of ${template.source} writes text only; give the content as text, or a template that takes parts (chat_template_path).`,
  );
}

/** @param userTakesParts how the user's message beside that of another role is given */
function triesParts(template: ChatTemplate, role: string, userTakesParts: boolean): boolean {
  const written = (asParts: boolean): string | undefined => {
    const contentOf = (text: string, parts: boolean) => (parts ? [{ type: "text", text }] : text);
    const user = { role: "user", content: contentOf("question", userTakesParts) };
    const tried = { role, content: contentOf(probe, asParts) };
    const chat = role === "user" ? [tried] : role === "system" ? [tried, user] : [user, tried];
    try {
      return template.render(chat);
    } catch (error) {
      if (error instanceof ModelFormatError) return undefined;
      throw error;
    }
  };
  const parts = written(true);
  if (parts === undefined || !parts.includes(probe)) return false;
  // A part that is written itself, as Python or JSON write it, has its text in quotes.
  return parts === written(false) || !new RegExp(`["']${probe}["']`).test(parts);
}
