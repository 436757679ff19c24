/**
 * Chats to prompt and completion as text. Where the one ends and the other begins is not guessed from any markup but
 * taken from the model's template: the prompt is what it renders for the prompt's messages, and the completion what it
 * adds to that when it renders the whole chat (TRL's rule).
 */

import { exactKey } from "../../engine/files/exact-json.ts";
import type { ChatTemplate } from "../../engine/text/chat-template.ts";
import { TemplateLimitError } from "../../engine/text/jinja/limits.ts";
import { DatasetError, ModelFormatError } from "../../errors.ts";
import { type ChatMessage, type ChatRow, placeOf } from "./types.ts";

/** A chat as text. */
export interface ChatText {
  readonly prompt: string;
  /** All that the template writes after the prompt, end-of-turn tokens included; "" if nothing was said. */
  readonly completion: string;
  /** The whole chat begins with the prompt as rendered alone. If not, they part where they first differ. */
  readonly promptIsPrefix: boolean;
}

/**
 * A function from chats to text.
 *
 * @param variables of the template (chat_template_kwargs); a row's own go before them
 * @throws DatasetError naming the row and what the template said, where it refuses a chat
 */
export function chatRenderer(
  template: ChatTemplate,
  variables: Readonly<Record<string, unknown>> = {},
): (row: ChatRow) => ChatText {
  // The two rows of a pair, and often more, share their prompt.
  let lastKey: string | undefined;
  let lastPrompt = "";
  return (row) => {
    const { promptMessages, completionMessages, tools, templateOptions = {} } = row;
    const shared = { ...(tools === undefined ? {} : { tools }), variables: { ...variables, ...templateOptions } };
    const render = (...args: Parameters<ChatTemplate["render"]>) => {
      try {
        return template.render(...args);
      } catch (error) {
        // A limit is exceeded by the template, whatever the row.
        if (!(error instanceof ModelFormatError) || error instanceof TemplateLimitError) throw error;
        const message = error.message.replace(/\.$/, "");
        throw new DatasetError(
          `${placeOf(row.source)}: ${message}; change the row, or give another template (chat_template_path).`,
          { cause: error },
        );
      }
    };
    const key = exactKey([promptMessages, shared]);
    if (key !== lastKey) {
      // A prompt that ends with the assistant's words is a beginning that the completion goes on from.
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

/** No text, no tool call, nothing else that a template could write. */
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
