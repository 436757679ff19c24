/** The types of feedback on its way from a file to token ids, and of the report on it. */

/** Where a row was read. */
export interface RowSource {
  readonly file: string;
  /** 1-based line on which the row begins; of a parquet file, the number of the row. */
  readonly line: number;
  /** 1-based position in the list, given if an earlier row begins on the same line (.json). */
  readonly element?: number;
}

/** The values of one row by the names of their columns. */
export type Fields = Readonly<Record<string, unknown>>;

/** One row of a file before its layout is known. */
export interface FileRecord {
  readonly fields: Fields;
  readonly source: RowSource;
  /** Whether all fields are texts, so that labels are words, as in .csv. */
  readonly textOnly?: boolean;
  /** The export's name, if the row was made from a rating. The fields are prompt, completion and label already then. */
  readonly exportedBy?: string;
}

interface RowBase {
  /** Thumbs up. */
  readonly label: boolean;
  readonly source: RowSource;
  /** Equal for the two rows made of one preference pair; counts from 0 in file order. */
  readonly pair?: number;
}

/** A judged completion as text. */
export interface TextRow extends RowBase {
  readonly prompt: string;
  readonly completion: string;
}

/** A judged completion as token ids, which are used unchanged. */
export interface TokenRow extends RowBase {
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
}

/**
 * One turn of a chat. It keeps all other fields of the file (tool_calls, name, ...), since chat templates read them.
 */
export interface ChatMessage {
  readonly role: string;
  readonly content: unknown;
  readonly [key: string]: unknown;
}

/** A judged completion as chat messages; the model's chat template makes text of it. */
export interface ChatRow extends RowBase {
  /** The conversation up to the completion, at least one message. */
  readonly promptMessages: readonly ChatMessage[];
  /** The judged answer: the assistant's last message, or several messages with tool calls among them. */
  readonly completionMessages: readonly ChatMessage[];
  /** JSON schemas of tools, handed to the template. */
  readonly tools?: readonly unknown[];
  /** `chat_template_kwargs` of the row, e.g. enable_thinking. */
  readonly templateOptions?: Readonly<Record<string, unknown>>;
}

export type FeedbackRow = TextRow | TokenRow | ChatRow;

/** Whether every row must have a label. If labels are optional, a row without one counts as desirable. */
export type Labels = "required" | "optional";

/** Rows in a list, or one after another from a file. */
export type FeedbackRows = Iterable<FeedbackRow> | AsyncIterable<FeedbackRow>;

/** A judged completion, ready for a batch. */
export interface Example {
  /** 0-based position of its row in the file; rows that were dropped leave gaps. A pair's rows count as two. */
  readonly index: number;
  /** One token or more. */
  readonly promptIds: Uint32Array<ArrayBuffer>;
  /** One token or more. */
  readonly completionIds: Uint32Array<ArrayBuffer>;
  /** Thumbs up. */
  readonly label: boolean;
  readonly source: RowSource;
  readonly pairId?: number;
  /** Whether the completion was cut to the length limit. */
  readonly cut: boolean;
}

/** Rows left out for one reason. */
export interface DroppedRows {
  readonly reason: string;
  readonly count: number;
  /** The line numbers of the first few. */
  readonly firstLines: readonly number[];
}

/** Quantiles of a length in tokens over the examples. */
export interface LengthSummary {
  readonly min: number;
  readonly median: number;
  readonly p95: number;
  readonly max: number;
}

/** The report on the tokenization of rows. */
export interface DatasetReport {
  /** Binary rows read (a preference pair is two). */
  readonly rows: number;
  /** Examples kept = desirable + undesirable. */
  readonly examples: number;
  readonly desirable: number;
  readonly undesirable: number;
  readonly dropped: readonly DroppedRows[];
  /** Examples whose completion was cut. */
  readonly cut: number;
  /** Examples whose prompt was cut. */
  readonly promptsCut: number;
  /** Sums over the examples. */
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly lengths: {
    readonly prompt: LengthSummary;
    readonly completion: LengthSummary;
    readonly total: LengthSummary;
  };
  /** Sentences to show once. */
  readonly warnings: readonly string[];
  /** Sentences to show once to somebody who trains on the rows. */
  readonly advice: readonly string[];
}

/** A row's place for messages: `file:line`, with its position in the list if several rows begin on the line. */
export function placeOf({ file, line, element }: RowSource): string {
  return element === undefined ? `${file}:${line}` : `${file}:${line} (element ${element})`;
}
