/**
 * A row's text or chat to token ids: where the prompt's ids end and the completion's begin. The conventions are TRL's
 * where tokens(prompt + completion) begin with tokens(prompt). Where they do not, TRL cuts the ids of the whole at the
 * number of the prompt's, so that a token may be lost or doubled at the seam; here the two are tokenized apart, so that
 * they say just what the row says, and such rows are counted in a warning.
 * Length limits and their account are `tokenize.ts`'s.
 */
import type { ChatTemplate } from "../../engine/text/chat-template.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { DatasetError } from "../../errors.ts";
import { chatRenderer } from "./chat.ts";
import { type ChatRow, type FeedbackRow, placeOf, type TextRow } from "./types.ts";

export interface EncodeRowOptions {
  /** Needed for rows of text and chats. */
  readonly tokenizer?: Tokenizer;
  /** End completions of text with the tokenizer's EOS token unless they have it; default true. Chats end as rendered. */
  readonly appendEos?: boolean;
  /** Needed for chats. */
  readonly chatTemplate?: ChatTemplate;
  /** Variables of the chat template (chat_template_kwargs); a row's own go before them. */
  readonly templateOptions?: Readonly<Record<string, unknown>>;
}

/** The ids of one row, before any limit. */
export interface EncodedRow {
  readonly promptIds: ArrayLike<number>;
  /** None where nothing was said. */
  readonly completionIds: ArrayLike<number>;
  /** tokens(prompt + completion) begin with tokens(prompt); if not, the two were tokenized apart. */
  readonly aligned: boolean;
  /** The chat, rendered whole, begins with its prompt, rendered alone; true of everything that is not a chat. */
  readonly promptIsPrefix: boolean;
}

/**
 * A function from rows to ids. A prompt of text begins with the tokenizer's leading special tokens; a chat has those
 * that its template writes, and no more: no second BOS, and no EOS behind what the template ends with. A completion is
 * what tokens(prompt + completion) hold after tokens(prompt), or, where those do not begin alike, tokens(completion).
 * Rows that are token ids already are given back as they are.
 *
 * @throws DatasetError naming the row, where the tokenizer or the template is missing or the template refuses a chat
 */
export function rowEncoder(options: EncodeRowOptions): (row: FeedbackRow) => EncodedRow {
  const { tokenizer, chatTemplate, templateOptions, appendEos = true } = options;
  // The two rows of a pair, and often more, share their prompt.
  let lastKey: string | undefined;
  let promptIds: readonly number[] = [];
  const encode = (given: Tokenizer, prompt: string, completion: string, addSpecialTokens: boolean) => {
    const key = `${addSpecialTokens} ${prompt}`;
    if (key !== lastKey) promptIds = given.encode(prompt, { addSpecialTokens });
    lastKey = key;
    if (completion === "") return { promptIds, completionIds: [], aligned: true };
    const whole = given.encode(prompt + completion, { addSpecialTokens });
    const aligned = promptIds.every((id, i) => whole[i] === id);
    const completionIds = aligned
      ? whole.slice(promptIds.length)
      : given.encode(completion, { addSpecialTokens: false, continues: true });
    return { promptIds, completionIds, aligned };
  };

  const encodeText = (row: TextRow): EncodedRow => {
    if (!tokenizer) {
      throw new DatasetError(
        `${placeOf(row.source)} is text, but there is no tokenizer; give "prompt_ids" and "completion_ids" instead.`,
      );
    }
    const ids = encode(tokenizer, row.prompt, row.completion, true);
    const eos = tokenizer.eosTokenId;
    if (appendEos && eos !== undefined && ids.completionIds.length > 0 && ids.completionIds.at(-1) !== eos) {
      // Still subject to the cut, which takes the EOS first.
      ids.completionIds.push(eos);
    }
    return { ...ids, promptIsPrefix: true };
  };

  const render = chatTemplate === undefined ? undefined : chatRenderer(chatTemplate, templateOptions);
  const encodeChat = (row: ChatRow): EncodedRow => {
    if (!tokenizer) {
      throw new DatasetError(`${placeOf(row.source)} is a chat, but there is no tokenizer to make tokens of it.`);
    }
    if (!render) {
      throw new DatasetError(
        `${placeOf(row.source)} is a chat, but the model's folder has no chat template; give one as chat_template_path (a .jinja file or a folder that has one), or use rows of text.`,
      );
    }
    const { prompt, completion, promptIsPrefix } = render(row);
    return { ...encode(tokenizer, prompt, completion, false), promptIsPrefix };
  };

  return (row) => {
    if ("promptIds" in row) {
      const { promptIds, completionIds } = row;
      return { promptIds, completionIds, aligned: true, promptIsPrefix: true };
    }
    return "promptMessages" in row ? encodeChat(row) : encodeText(row);
  };
}
