/**
 * Selects the rows that supervised fine-tuning imitates: the desirable rows of feedback, and the chosen row of each
 * preference pair. They can be iterated as often as the rows they are selected from.
 */
import { DatasetError } from "../../errors.ts";
import type { FeedbackRow, FeedbackRows } from "./types.ts";

export class DesirableRows implements AsyncIterable<FeedbackRow> {
  readonly #rows: FeedbackRows;
  /** How many undesirable rows the last complete pass left out. */
  leftOut = 0;
  /** How many chats of the last complete pass have an assistant message before the answer that is imitated. */
  withEarlierAnswers = 0;

  constructor(rows: FeedbackRows) {
    this.#rows = rows;
  }

  /** @throws DatasetError if there are rows but none is desirable; also whatever reading the rows throws */
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
    this.leftOut = leftOut;
    this.withEarlierAnswers = withEarlierAnswers;
    if (kept > 0 || leftOut === 0) return;
    throw new DatasetError(
      `${file}: ${leftOut === 1 ? "the only row is" : `all ${leftOut} rows are`} undesirable, and supervised fine-tuning imitates its rows; give some that are desirable.`,
    );
  }
}
