/**
 * What a shape tells of a record of an export, and what becomes of it. A shape finds conversation, answer and rating;
 * whether they make a row is decided by the same rules for all programs (`rules.ts`, `ledger.ts`).
 */

/** An object as JSON, csv or a database gives it. Nothing in it is known to have the form that its name promises. */
export type Json = Readonly<Record<string, unknown>>;

/** Why a rating gives no row. If several reasons apply, the first in this order is the one that is told. */
export const reasons = [
  "superseded",
  "no-rating",
  "disagree",
  "deleted",
  "answer-missing",
  "not-an-answer",
  "broken-path",
  "unfinished",
  "edited",
  "attachment",
  "tool-call",
  "truncated",
  "context-missing",
  "tie",
  "unreadable",
  "empty",
] as const;
export type Reason = (typeof reasons)[number];

/** One message of a conversation, before reasoning is taken out of it. */
export interface Turn {
  /** "system", "user", "assistant" or "tool"; undefined for a speaker that is not known. */
  readonly role: string | undefined;
  /** undefined if the content has no form that is known. */
  readonly text: string | undefined;
  /** What speaks against the turn. Some of it matters only if the turn is the rated answer (`rules.ts`). */
  readonly faults?: readonly Reason[];
  /** Whether the program says that the answer was written from documents that the file does not hold. */
  readonly cites?: boolean;
}

/** What a rater, or all raters of a record, said of an answer: up, down, or why it is neither. */
export type Thumb = boolean | "no-rating" | "disagree";

/** One rating, as a shape finds it. */
export interface Rating {
  /** The record's own id in the export, for the list of what was dropped. */
  readonly id: string | number;
  readonly thumb: Thumb;
  /** The turns from the first message to the rated answer, which is the last, or why there are none. */
  readonly turns: () => readonly Turn[] | Reason;
  /** What speaks against the rating besides its turns. */
  readonly faults?: readonly Reason[];
  /** Names the rated answer where several records may rate it. It stays in memory and is never written. */
  readonly answer?: string;
  /** Names the rater beside `answer`; undefined if all records are of one rater. Never written either. */
  readonly rater?: string;
  /** Orders the ratings of one answer by one rater; where times are equal the export's own order counts. */
  readonly time?: number;
  /** For exports that hold only the last question of a conversation: which conversation, and where in it. */
  readonly thread?: { readonly id: string; readonly message: string; readonly time: number };
  readonly model?: string | undefined;
  /** The day of the rating, "2026-11-30". */
  readonly day?: string | undefined;
}

/** What a shape finds in a record; "unrated" is an answer that nobody has rated. */
export type Finding = Rating | "unrated";

/** The names that a user gives where the program lets its users choose them. */
export interface UserNames {
  readonly prompt?: string | undefined;
  readonly completion?: string | undefined;
  /** For pairs with one rating: the names of the left and the right answer, in place of `completion`. */
  readonly pair?: readonly [left: string, right: string] | undefined;
  /** The name of the rating: a score, a question, a control. */
  readonly label?: string | undefined;
}

/** What a shape is told besides the record. */
export interface ReadingContext {
  readonly names: UserNames;
  /** The thumb that a value of the rating stands for; undefined for a value that is neither. */
  readonly thumbOf: (value: unknown) => boolean | undefined;
  /** Whether the user said which values are thumbs, or from which number on. */
  readonly isScaled: boolean;
  /** 1-based position of the record in its file. */
  readonly position: number;
}

/** A reader of records that cannot be understood one by one, such as messages of a tree with a record each. */
export interface JoinedReader {
  /** Each is given all records of all files of the shape, in turn, before the next is asked for, and before findings. */
  readonly passes: Iterable<(record: Json) => void>;
  /** Asked for all records in the same order, as often as is needed. */
  readonly findings: (record: Json, position: number) => Iterable<Finding>;
}

/** One line of the table of shapes. */
export type Shape = ShapeFacts &
  (
    | { readonly findings: (record: Json, reading: ReadingContext) => Iterable<Finding>; readonly joined?: never }
    | { readonly joined: (reading: Omit<ReadingContext, "position">) => JoinedReader; readonly findings?: never }
  );

interface ShapeFacts {
  readonly name: string;
  /** The fields by which a record is recognised, as a message lists them. */
  readonly lookedFor: string;
  readonly matches: (record: Json) => boolean;
  /** What of `UserNames` must be given, since the program's users choose these names. */
  readonly named?: readonly Exclude<keyof UserNames, "pair">[];
  /** Whether `UserNames.pair` may be given. */
  readonly hasPairs?: boolean;
  /** The names that a record has for the rating, to list them where none was given or another one. */
  readonly ratingNames?: (record: Json) => readonly string[];
  /** Columns to read of a parquet file. */
  readonly columns?: readonly string[];
  /** Whether the newest ratings come first, so that of two with the same time the first counts. */
  readonly newestFirst?: boolean;
  /** What a user should know about all files of the shape; told once. */
  readonly note?: string;
}

/** A message of a row. */
export interface RowMessage {
  readonly role: string;
  readonly content: string;
}

/** A row in the layout of conversations. */
export interface ExportRow {
  readonly prompt: readonly RowMessage[];
  readonly completion: readonly [RowMessage];
  readonly label: boolean;
}
