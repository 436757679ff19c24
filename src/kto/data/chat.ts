/**
 * Renders chats as text and splits them into prompt and completion. The split needs no knowledge of any markup: the
 * prompt is what the model's template renders for the prompt's messages, and the completion is what it adds when it
 * renders the whole chat (TRL's rule). Tokenizing follows in `encode.ts`.
 */
import { exactText, overridden } from "../../engine/files/exact-json.ts";
import type { ChatTemplate } from "../../engine/text/chat-template.ts";
import { TemplateLimitError } from "../../engine/text/jinja/limits.ts";
import { DatasetError, ModelFormatError } from "../../errors.ts";
import { partJoiner } from "./parts.ts";
import { type ChatMessage, type ChatRow, placeOf } from "./types.ts";

/** A chat as text. */
export interface ChatText {
  readonly prompt: string;
  /** All that the template writes after the prompt, end-of-turn tokens included; "" if nothing was said. */
  readonly completion: string;
  /** Whether the whole chat begins with the prompt rendered alone. If not, the split is where the two first differ. */
  readonly promptIsPrefix: boolean;
}

/**
 * Returns a function that renders one chat. It throws a DatasetError that names the row and quotes the template where
 * the template refuses the chat.
 *
 * @param variables the template's variables (chat_template_kwargs); a row's own variables override them
 */
export function chatRenderer(
  template: ChatTemplate,
  variables: Readonly<Record<string, unknown>> = {},
): (row: ChatRow) => ChatText {
  // Consecutive rows often share their prompt (those of a pair always do), so the last one is kept.
  let lastKey: string | undefined;
  let lastPrompt = "";
  const joined = partJoiner(template);
  return (row) => {
    const { tools, templateOptions = {}, source } = row;
    const promptMessages = joined(row.promptMessages, "prompt", source);
    const completionMessages = joined(row.completionMessages, "completion", source);
    const shared = { ...(tools === undefined ? {} : { tools }), variables: overridden(variables, templateOptions) };
    const render = (...args: Parameters<ChatTemplate["render"]>) => {
      try {
        return template.render(...args);
      } catch (error) {
        // A limit is exceeded by the template, whatever the row.
        if (!(error instanceof ModelFormatError) || error instanceof TemplateLimitError) throw error;
        const message = error.message.replace(/\.$/, "");
        throw new DatasetError(
          `${placeOf(source)}: ${message}; change the row, or give another template (chat_template_path).`,
          { cause: error },
        );
      }
    };
    const key = exactText([promptMessages, shared]);
    if (key !== lastKey) {
      // A prompt that ends with the assistant's words is the beginning of the answer that the completion continues.
      const opened = promptMessages.at(-1)?.role === "assistant";
      const ending = opened ? { continueFinalMessage: true } : { addGenerationPrompt: true };
      lastPrompt = render(promptMessages, { ...shared, ...ending });
      lastKey = key;
    }
    if (completionMessages.every(saysNothing)) return { prompt: lastPrompt, completion: "", promptIsPrefix: true };
    const whole = render([...promptMessages, ...completionMessages], shared);
    const boundary = commonPrefix(lastPrompt, whole);
    return {
      prompt: whole.slice(0, boundary),
      completion: whole.slice(boundary),
      promptIsPrefix: boundary === lastPrompt.length,
    };
  };
}

/** Whether a message has no text, no tool call and nothing else that a template could write. */
function saysNothing({ role: _, name: __, ...rest }: ChatMessage): boolean {
  return Object.values(rest).every((value) => {
    return value === null || value === undefined || value === "" || (Array.isArray(value) && value.length === 0);
  });
}

/** Length of the longest common prefix that does not end within a surrogate pair. */
function commonPrefix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  const last = a.charCodeAt(length - 1);
  const split = length < a.length && length < b.length && last >= 0xd800 && last <= 0xdbff;
  return split ? length - 1 : length;
}
