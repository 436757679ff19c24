/**
 * Encodes rows in several threads, to the same ids and in the same order as without. Rows go out in batches, turn by
 * turn; only a few batches are in memory at a time. What a thread cannot encode is encoded here, and so fails here.
 */
import { exactText } from "../../engine/files/exact-json.ts";
import { platform, type Thread } from "../../engine/platform/index.ts";
import { type EncodedRow, type EncodeRowOptions, rowEncoder } from "./encode.ts";
import { ALIGNED, type EncodedTexts, type EncoderRequest, PROMPT_IS_PREFIX } from "./encode-worker.ts";
import type { FeedbackRow } from "./types.ts";

const code = {
  address: new URL("./encode-worker.js", import.meta.url),
  open: () => new Worker(new URL("./encode-worker.js", import.meta.url), { type: "module" }),
};

/** Rows and characters of a batch at most; a row that is longer is a batch of its own. */
const BATCH_ROWS = 256;
const BATCH_CHARACTERS = 2 ** 20;
/** Batches that are on their way for each thread. */
const AHEAD = 2;
/** Rows for which it is worth while to start a thread, which loads a tokenizer. */
const ROWS_OF_A_THREAD = 500;
/** Heap of a thread: the largest tokenizers take some hundred MB. */
const HEAP_BYTES = 2 ** 31;
/** Templates and tokenizers have limits of their own. The most that timers hold, in milliseconds. */
const NO_LIMIT = 2 ** 31 - 1;

/** Where threads find what they encode with. */
export interface EncoderFiles {
  /** The folder with the tokenizer's files. */
  readonly folder: string;
  /** Where the chat template is, if not in the folder. */
  readonly templatePath?: string | undefined;
}

/** A row with its text (`textOfRow`). */
export type RowWithText = readonly [row: FeedbackRow, text: string | undefined];

/** A batch on its way. */
interface Batch {
  readonly rows: readonly FeedbackRow[];
  /** undefined where the thread failed. */
  readonly answer: Promise<EncodedTexts | undefined>;
}

/** How many threads so many rows are worth. At least 1, which means none beside the calling one. */
export function threadsFor(rows: number, asked: number): number {
  return Math.max(1, Math.min(asked, platform.processors(), Math.floor(rows / ROWS_OF_A_THREAD)));
}

/**
 * The rows with their ids, in order.
 *
 * @param files must hold the tokenizer and template of `options`
 * @throws DatasetError as `rowEncoder`'s function does
 */
export async function* encodedInThreads(
  rows: AsyncIterable<RowWithText>,
  count: number,
  options: EncodeRowOptions,
  { folder, templatePath = "" }: EncoderFiles,
): AsyncGenerator<readonly [FeedbackRow, EncodedRow]> {
  const { chatTemplate, templateOptions = {}, appendEos = true } = options;
  const start = { folder, appendEos, templateOptions: exactText(templateOptions) };
  const request: EncoderRequest = { ...start, template: chatTemplate === undefined ? undefined : templatePath };
  const threads = await Promise.all(Array.from({ length: count }, () => platform.startThread(code, HEAP_BYTES)));
  const encode = rowEncoder(options);
  const turns = threads.map((thread) => ask(thread, request));
  const waiting: Batch[] = [];
  let turn = 0;
  const send = (batch: readonly FeedbackRow[], texts: readonly string[]) => {
    const thread = threads[turn];
    const answer = (turns[turn] ?? Promise.resolve(undefined)).then((last) =>
      last && thread ? ask(thread, { texts }) : undefined,
    );
    turns[turn] = answer;
    turn = (turn + 1) % count;
    waiting.push({ rows: batch, answer });
  };
  try {
    let [batch, texts, characters]: [FeedbackRow[], string[], number] = [[], [], 0];
    for await (const [row, text = "[]"] of rows) {
      batch.push(row);
      texts.push(text);
      characters += text.length;
      if (batch.length < BATCH_ROWS && characters < BATCH_CHARACTERS) continue;
      send(batch, texts);
      [batch, texts, characters] = [[], [], 0];
      while (waiting.length > AHEAD * count) yield* encodedRows(waiting.shift(), encode);
    }
    if (batch.length > 0) send(batch, texts);
    while (waiting.length > 0) yield* encodedRows(waiting.shift(), encode);
  } finally {
    await Promise.all(threads.map((thread) => thread.end()));
  }
}

/** @returns undefined where the thread failed; its rows are then encoded by the caller */
async function ask(thread: Thread, request: EncoderRequest): Promise<EncodedTexts | undefined> {
  try {
    return (await thread.ask(request, NO_LIMIT)) as EncodedTexts;
  } catch {
    return undefined;
  }
}

async function* encodedRows(
  batch: Batch | undefined,
  encode: (row: FeedbackRow) => EncodedRow,
): AsyncGenerator<readonly [FeedbackRow, EncodedRow]> {
  if (batch === undefined) return;
  const answer = await batch.answer;
  let at = 0;
  const take = (length = 0) => {
    at += length;
    return answer?.ids.subarray(at - length, at) ?? [];
  };
  for (const [i, row] of batch.rows.entries()) {
    const [flags, promptLength, completionLength] = answer?.lengths.subarray(3 * i, 3 * i + 3) ?? [];
    if ("promptIds" in row || flags === undefined) yield [row, encode(row)];
    else {
      const [promptIds, completionIds] = [take(promptLength), take(completionLength)];
      yield [
        row,
        { promptIds, completionIds, aligned: (flags & ALIGNED) > 0, promptIsPrefix: (flags & PROMPT_IS_PREFIX) > 0 },
      ];
    }
  }
}
