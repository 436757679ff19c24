/**
 * Prepares contents that are lists of parts for templates that expect text. Most chat templates write `message.content`
 * as it is; templates of models with images loop over its parts. A template does not say which kind it is, so it is
 * tested: it accepts parts if it renders a part's text and not the part itself. (vLLM searches the template's syntax
 * tree for a loop over the content, which misses loops in macros and mistakes `content.split()` for one.)
 */
import type { ChatTemplate } from "../../engine/text/chat-template.ts";
import { DatasetError, ModelFormatError } from "../../errors.ts";
import { described } from "./records.ts";
import { type ChatMessage, placeOf, type RowSource } from "./types.ts";

/** A text that does not occur in templates and that trimming does not change. */
const probe = "qzxprobeqzx";

/**
 * Returns a function that prepares messages for a template. If the template expects text, parts that are all text are
 * joined. The function throws a DatasetError that names row, message and part if a part is not text.
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

/** @param userTakesParts whether the user's message, beside a message of another role, is given in parts */
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
  // If the part itself is rendered, as Python or JSON write it, its text is in quotes.
  return parts === written(false) || !new RegExp(`["']${probe}["']`).test(parts);
}
