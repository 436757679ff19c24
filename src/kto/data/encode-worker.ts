/**
 * Encodes rows in a thread of its own, with a tokenizer and a chat template that it loads itself. Written as a Web
 * Worker; Node runs it as one too. Which rows go to which thread is decided in `encode-threads.ts`.
 */
import { parseExactJson } from "../../engine/files/exact-json.ts";
import { loadChatTemplate } from "../../engine/text/chat-template.ts";
import { loadTokenizer } from "../../engine/text/tokenizer.ts";
import { type EncodedRow, rowEncoder } from "./encode.ts";
import { rowOfText } from "./row-texts.ts";

/** A request: load what encoding needs, or encode rows, given as their texts. */
export type EncoderRequest =
  | {
      readonly folder: string;
      /** Where the chat template is if rows are chats, "" for the model's folder. */
      readonly template: string | undefined;
      /** Variables of the template, as exact JSON. */
      readonly templateOptions: string;
      readonly appendEos: boolean;
    }
  | { readonly texts: readonly string[] };

/** The rows up to the first that cannot be encoded; its error is found again where its place in the file is known. */
export interface EncodedTexts {
  /** Three words for each row: flags, tokens of the prompt, tokens of the completion. */
  readonly lengths: Uint32Array<ArrayBuffer>;
  /** All ids, row after row. */
  readonly ids: Uint32Array<ArrayBuffer>;
}

/** Bits of a row's flags. */
export const ALIGNED = 1;
export const PROMPT_IS_PREFIX = 2;

let encode: ReturnType<typeof rowEncoder> | undefined;

const answerTo = async (request: EncoderRequest): Promise<EncodedTexts> => {
  if ("texts" in request) return packed(encodable(request.texts));
  const { folder, template, templateOptions, appendEos } = request;
  const chatTemplate =
    template === undefined
      ? undefined
      : await loadChatTemplate(folder, template === "" ? {} : { templatePath: template });
  encode = rowEncoder({
    tokenizer: await loadTokenizer(folder),
    appendEos,
    chatTemplate,
    templateOptions: parseExactJson(templateOptions) as Record<string, unknown>,
  });
  return packed([]);
};

function encodable(texts: readonly string[]): EncodedRow[] {
  const made: EncodedRow[] = [];
  try {
    for (const text of texts) if (encode !== undefined) made.push(encode(rowOfText(text)));
  } catch {
    // Told by whoever sent the row.
  }
  return made;
}

function packed(rows: readonly EncodedRow[]): EncodedTexts {
  const lengths = rows.flatMap(({ promptIds, completionIds, aligned, promptIsPrefix }) => [
    (aligned ? ALIGNED : 0) | (promptIsPrefix ? PROMPT_IS_PREFIX : 0),
    promptIds.length,
    completionIds.length,
  ]);
  const parts = rows.flatMap(({ promptIds, completionIds }) => [promptIds, completionIds]);
  const ids = new Uint32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length;
  }
  return { lengths: Uint32Array.from(lengths), ids };
}

globalThis.onmessage = async ({ data }: MessageEvent<EncoderRequest>) => {
  const answer = await answerTo(data);
  postMessage(answer, { transfer: [answer.lengths.buffer, answer.ids.buffer] });
};
