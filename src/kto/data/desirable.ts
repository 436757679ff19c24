/**
 * The rows that supervised fine-tuning imitates: of feedback the desirable ones, of a preference pair the chosen one.
 * They are gone through as often as the rows that they are taken from.
 */
import { DatasetError } from "../../errors.ts";
import type { FeedbackRow, FeedbackRows } from "./types.ts";

export class DesirableRows implements AsyncIterable<FeedbackRow> {
  readonly #rows: FeedbackRows;
  #leftOut = 0;
  #withEarlierAnswers = 0;

  constructor(rows: FeedbackRows) {
    this.#rows = rows;
  }

  /** Undesirable rows that the last whole pass left out. */
  get leftOut(): number {
    return this.#leftOut;
  }

  /** Chats of the last whole pass in which the assistant speaks before the answer that is imitated. */
  get withEarlierAnswers(): number {
    return this.#withEarlierAnswers;
  }

  /** @throws DatasetError where there are rows and none of them is desirable; what reading them throws */
  async *[Symbol.asyncIterator](): AsyncGenerator<FeedbackRow> {
    let kept = 0;
    let leftOut = 0;
    let withEarlierAnswers = 0;
    let file = "";
    for await (const row of this.#rows) {
      file = row.source.file;
      if (row.label) {
        kept++;
        if ("promptMessages" in row && row.promptMessages.some(({ role }) => role === "assistant"))
          withEarlierAnswers++;
        yield row;
      } else leftOut++;
    }
    this.#leftOut = leftOut;
    this.#withEarlierAnswers = withEarlierAnswers;
    if (kept > 0 || leftOut === 0) return;
    throw new DatasetError(
      `${file}: ${leftOut === 1 ? "the only row is" : `all ${leftOut} rows are`} undesirable, and supervised fine-tuning imitates its rows; give some that are desirable.`,
    );
  }
}
