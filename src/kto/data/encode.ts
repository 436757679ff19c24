/**
 * Turns a row's text or chat into the token ids of its prompt and of its completion. As in TRL, the completion's ids
 * are those that tokens(prompt + completion) has after tokens(prompt). If it does not begin with tokens(prompt), TRL
 * cuts by length and may lose or double a token at the seam; here the completion is tokenized by itself, as a
 * continuation, so that the ids together say exactly what the row says. Length limits follow in `tokenize.ts`, which
 * also counts such rows in a warning.
 */
import type { ChatTemplate } from "../../engine/text/chat-template.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { DatasetError } from "../../errors.ts";
import { chatRenderer } from "./chat.ts";
import { type ChatRow, type FeedbackRow, placeOf, type TextRow } from "./types.ts";

export interface EncodeRowOptions {
  /** Needed for rows of text and chats. */
  readonly tokenizer?: Tokenizer;
  /** End text completions with the tokenizer's EOS token unless they have it; default true. Chats end as rendered. */
  readonly appendEos?: boolean;
  /** Needed for chats. */
  readonly chatTemplate?: ChatTemplate | undefined;
  /** Variables of the chat template (chat_template_kwargs); a row's own variables override them. */
  readonly templateOptions?: Readonly<Record<string, unknown>> | undefined;
}

/** The ids of one row, before any limit. */
export interface EncodedRow {
  readonly promptIds: ArrayLike<number>;
  /** Empty if the completion is empty. */
  readonly completionIds: ArrayLike<number>;
  /** Whether tokens(prompt + completion) begins with tokens(prompt). If not, the two were tokenized separately. */
  readonly aligned: boolean;
  /** Whether the rendered chat begins with its rendered prompt; true for rows that are not chats. */
  readonly promptIsPrefix: boolean;
}

/**
 * Returns a function that encodes one row. A text prompt begins with the tokenizer's leading special tokens. A chat has
 * only the special tokens that its template writes, with no second BOS before them and no EOS after them. Rows of token
 * ids are returned unchanged.
 *
 * The function throws a DatasetError that names the row if the tokenizer or the template is missing, or if the template
 * refuses the chat.
 */
export function rowEncoder(options: EncodeRowOptions): (row: FeedbackRow) => EncodedRow {
  const { tokenizer, chatTemplate, templateOptions, appendEos = true } = options;
  // Consecutive rows often share their prompt (those of a pair always do), so the last one is kept.
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
      // The length limit is applied later and cuts from the end, so it removes this EOS first.
      ids.completionIds.push(eos);
    }
    return { ...ids, promptIsPrefix: true };
  };

  const render = chatTemplate === undefined ? undefined : chatRenderer(chatTemplate, templateOptions);
  const encodeChat = (row: ChatRow): EncodedRow => {
    if (!tokenizer) {
      throw new DatasetError(
        `${placeOf(row.source)} is a chat, but there is no tokenizer; name a model that has one, or give "prompt_ids" and "completion_ids".`,
      );
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
