/** Programs whose users choose what a rating is called: LangSmith, Argilla, Label Studio; Langfuse has its own file. */
import { ConfigError } from "../../../errors.ts";
import { turnsOf } from "./forms.ts";
import { sides } from "./pairs.ts";
import { majority } from "./thumbs.ts";
import type { Finding, Json, ReadingContext, Shape } from "./types.ts";
import { dayOf, idOr, isObject, listOf, member, textOr } from "./values.ts";

/** LangSmith: a run as its SDK gives it, with the counts of each key of feedback. */
function* langSmithFindings(record: Json, { names, thumbOf, position }: ReadingContext): Generator<Finding> {
  const statistics = member(record, "feedback_stats", names.label ?? "");
  const average = member(statistics, "avg");
  if (average === undefined || average === null) {
    yield "unrated";
    return;
  }
  // The average of ones and zeros leans to the side of the majority.
  const isMixed = typeof average === "number" && average > 0 && average < 1 && member(statistics, "n") !== 1;
  const thumb = isMixed && thumbOf(average) === undefined ? (average === 0.5 ? "disagree" : average > 0.5) : undefined;
  const failed = record.error !== undefined && record.error !== null;
  yield {
    id: idOr(record.id, position),
    thumb: thumb ?? majority([thumbOf(average)]),
    turns: () => turnsOf(record.inputs, record.outputs),
    faults: failed ? ["unfinished"] : [],
    day: dayOf(record.start_time),
  };
}

/** Argilla's records have fields, or flattened the names themselves, and "thumb.responses" for a question "thumb". */
function* argillaFindings(record: Json, { names, thumbOf, position }: ReadingContext): Generator<Finding> {
  const { prompt = "", completion = "", label = "" } = names;
  const fields = isObject(record.fields) ? record.fields : record;
  const statuses = listOf(record[`${label}.responses.status`]);
  const values = isObject(record.responses)
    ? listOf(member(record.responses, label)).map((response) => member(response, "value"))
    : listOf(record[`${label}.responses`]).filter((_, i) => (statuses[i] ?? "submitted") === "submitted");
  yield {
    id: idOr(record.id, position),
    thumb: majority(values.map(thumbOf)),
    turns: () =>
      Object.hasOwn(fields, prompt) && Object.hasOwn(fields, completion)
        ? turnsOf(fields[prompt], fields[completion])
        : "unreadable",
  };
}

/** The results of Label Studio's annotations that people finished. */
function resultsOf(record: Json): readonly unknown[] {
  return listOf(record.annotations)
    .filter((annotation) => member(annotation, "was_cancelled") !== true)
    .flatMap((annotation) => listOf(member(annotation, "result")));
}

function* labelStudioFindings(record: Json, { names, thumbOf, position }: ReadingContext): Generator<Finding> {
  const { prompt = "", completion = "", label = "", pair } = names;
  const values = resultsOf(record)
    .filter((result) => member(result, "from_name") === label)
    .map((result) => member(result, "value"));
  const { data } = record;
  const id = idOr(record.id, position);
  const day = dayOf(record.updated_at ?? record.created_at);
  const turns = (answer: string) => () =>
    isObject(data) && Object.hasOwn(data, prompt) && Object.hasOwn(data, answer)
      ? turnsOf(data[prompt], data[answer])
      : "unreadable";
  const sidesPicked = values.map((value) => member(value, "selected")).filter((side) => side !== undefined);
  if (pair !== undefined) {
    const winner = majority(sidesPicked.map((side) => (side === "left" ? true : side === "right" ? false : undefined)));
    const [left, right] = pair.map((answer) => ({ turns: turns(answer) }));
    const side = typeof winner === "boolean" ? (winner ? "a" : "b") : winner;
    if (left !== undefined && right !== undefined) yield* sides(id, side, left, right, day);
    return;
  }
  if (sidesPicked.length > 0) {
    throw new ConfigError(
      `The control "${label}" of Label Studio picks one of two answers: give both of them to column_mapping, the left one first, such as '{"prompt": "question", "completion": ["answer1", "answer2"], "label": "${label}"}'.`,
    );
  }
  const votes = values.map((value) => {
    const choices = listOf(member(value, "choices"));
    return thumbOf(choices.length > 0 ? (choices.length === 1 ? choices[0] : undefined) : member(value, "rating"));
  });
  yield { id, thumb: majority(votes), turns: turns(completion), day };
}

const keysOf = (value: unknown) => Object.keys(isObject(value) ? value : {});
const suffix = ".responses";

export const namedRatingShapes: readonly Shape[] = [
  {
    name: "LangSmith runs",
    lookedFor: "inputs, outputs, run_type and feedback_stats",
    matches: (record) => ["inputs", "outputs", "run_type", "feedback_stats"].every((name) => name in record),
    findings: langSmithFindings,
    named: ["label"],
    ratingNames: ({ feedback_stats }) => keysOf(feedback_stats),
  },
  {
    name: "Argilla records",
    lookedFor: "fields and responses",
    matches: (record) =>
      (isObject(record.fields) && isObject(record.responses)) ||
      ("_server_id" in record && keysOf(record).some((name) => name.endsWith(suffix))),
    findings: argillaFindings,
    named: ["prompt", "completion", "label"],
    ratingNames: (record) => [
      ...keysOf(record.responses),
      ...keysOf(record)
        .filter((name) => name.endsWith(suffix))
        .map((name) => name.slice(0, -suffix.length)),
    ],
  },
  {
    name: "Label Studio tasks",
    lookedFor: "data and annotations",
    matches: ({ data, annotations }) => isObject(data) && Array.isArray(annotations),
    findings: labelStudioFindings,
    hasPairs: true,
    named: ["prompt", "completion", "label"],
    ratingNames: (record) => resultsOf(record).map((result) => textOr(member(result, "from_name"), "")),
  },
];
