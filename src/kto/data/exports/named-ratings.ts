/** Programs whose users choose what a rating is called: Langfuse, LangSmith, Argilla, Label Studio. */
import { turnsOf } from "./forms.ts";
import { majority } from "./thumbs.ts";
import type { Finding, Json, Reading, Shape } from "./types.ts";
import { dayOf, fromCell, idOr, isObject, listOf, member, textOr } from "./values.ts";

/** The columns of Langfuse's tables that are no scores. */
const langfuseColumns: ReadonlySet<string> = new Set([
  ...["id", "timestamp", "name", "userId", "sessionId", "release", "version", "environment", "tags", "bookmarked"],
  ...["public", "input", "output", "metadata", "comments", "projectId", "createdAt", "updatedAt", "externalId"],
  ...["latency", "observationCount", "totalCost", "inputTokens", "outputTokens", "totalTokens", "usage", "level"],
  ...["type", "traceId", "traceName", "startTime", "endTime", "parentObservationId", "model", "modelParameters"],
  ...["errorCount", "warningCount", "defaultCount", "debugCount", "observations", "inputCost", "outputCost"],
]);

function* langfuseFindings(record: Json, { names, thumbOf, position }: Reading): Generator<Finding> {
  const given = fromCell(member(record, names.label ?? ""));
  if (given === undefined || given === null || given === "" || (Array.isArray(given) && given.length === 0)) {
    yield "unrated";
    return;
  }
  const time = record.timestamp ?? record.startTime;
  yield {
    id: idOr(record.id, position),
    // Equal values are merged into one, so that a list says which values there were and not how often.
    thumb: majority((Array.isArray(given) ? given : [given]).map(thumbOf)),
    turns: () => turnsOf(record.input, record.output),
    model: textOr(record.model, undefined),
    day: dayOf(time),
  };
}

/** LangSmith: a run as its SDK gives it, with the counts of each key of feedback. */
function* langSmithFindings(record: Json, { names, thumbOf, position }: Reading): Generator<Finding> {
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
function* argillaFindings(record: Json, { names, thumbOf, position }: Reading): Generator<Finding> {
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

function* labelStudioFindings(record: Json, { names, thumbOf, position }: Reading): Generator<Finding> {
  const { prompt = "", completion = "", label = "" } = names;
  const votes = resultsOf(record)
    .filter((result) => member(result, "from_name") === label)
    .map((result) => {
      const choices = listOf(member(result, "value", "choices"));
      return thumbOf(
        choices.length > 0 ? (choices.length === 1 ? choices[0] : undefined) : member(result, "value", "rating"),
      );
    });
  const { data } = record;
  const isThere = isObject(data) && Object.hasOwn(data, prompt) && Object.hasOwn(data, completion);
  yield {
    id: idOr(record.id, position),
    thumb: majority(votes),
    turns: () => (isThere ? turnsOf(data[prompt], data[completion]) : "unreadable"),
    day: dayOf(record.updated_at ?? record.created_at),
  };
}

const keysOf = (value: unknown) => Object.keys(isObject(value) ? value : {});
const suffix = ".responses";

export const namedRatingShapes: readonly Shape[] = [
  {
    name: "Langfuse traces",
    lookedFor: "id, timestamp, environment, input, output and a column for the score",
    matches: (record) =>
      ["id", "input", "output", "environment"].every((name) => name in record) &&
      ("timestamp" in record || "startTime" in record),
    findings: langfuseFindings,
    named: ["label"],
    ratingNames: (record) => Object.keys(record).filter((name) => !langfuseColumns.has(name)),
  },
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
    named: ["prompt", "completion", "label"],
    ratingNames: (record) => resultsOf(record).map((result) => textOr(member(result, "from_name"), "")),
  },
];
