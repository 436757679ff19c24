/**
 * Langfuse: the tables of traces and of observations with a column for each score, single traces with their
 * observations and scores, and the table of scores, whose texts stand in the traces or observations beside it. Sources:
 * getDatabaseReadStream.ts, buildTraceExport.ts, domain/scores.ts, fern/apis/server (what its API answers).
 */
import { turnsOf } from "./forms.ts";
import { majority } from "./thumbs.ts";
import type { Finding, JoinedReader, Json, ReadingContext, Shape, Thumb } from "./types.ts";
import { dayOf, fromCell, idOr, isObject, listOf, member, textOr } from "./values.ts";

/** The columns of Langfuse's tables, and members of its API's records, that are no scores. */
const columns: ReadonlySet<string> = new Set([
  ...["id", "timestamp", "name", "userId", "sessionId", "release", "version", "environment", "tags", "bookmarked"],
  ...["public", "input", "output", "metadata", "comments", "projectId", "createdAt", "updatedAt", "externalId"],
  ...["latency", "observationCount", "totalCost", "inputTokens", "outputTokens", "totalTokens", "usage", "level"],
  ...["type", "traceId", "traceName", "startTime", "endTime", "parentObservationId", "model", "modelParameters"],
  ...["errorCount", "warningCount", "defaultCount", "debugCount", "observations", "inputCost", "outputCost"],
  ...["scores", "htmlPath", "statusMessage", "completionStartTime", "promptId", "promptName", "promptVersion"],
]);

const has = (record: Json, ...names: readonly string[]) => names.every((name) => name in record);
const isRow = (record: Json) =>
  has(record, "id", "input", "output", "environment") && (has(record, "timestamp") || has(record, "startTime"));
const isScore = (record: Json) => has(record, "traceId", "name", "dataType", "source");
const isTrace = ({ observations, scores }: Json) =>
  Array.isArray(observations) && Array.isArray(scores) && [...observations, ...scores].every(isObject);
/** What the API answers to a question for several: a page of them. */
const pageOf = ({ data, meta }: Json): readonly Json[] | undefined =>
  Array.isArray(data) && isObject(meta) && data.length > 0 && data.every(isObject) ? data : undefined;
const isKnown = (record: Json) => isTrace(record) || isRow(record) || isScore(record);

/** What a person's score says; undefined for a score of a machine or of another name, or for a corrected answer. */
function voteOf(score: Json, { names, thumbOf }: Pick<ReadingContext, "names" | "thumbOf">) {
  if (score.name !== names.label || score.source === "EVAL") return undefined;
  if (score.dataType === "CORRECTION" || score.dataType === "TEXT") return undefined;
  // The number beside a category is 0 where the user gave it none.
  const value = score.dataType === "CATEGORICAL" ? undefined : thumbOf(fromCell(score.value));
  return { up: value ?? thumbOf(score.stringValue) };
}

type Vote = NonNullable<ReturnType<typeof voteOf>>;

/** The id of what was rated: an observation, or else the trace. */
const targetOf = ({ observationId, traceId }: Json): string => textOr(observationId, "") || textOr(traceId, "");

/** Adds the votes of scores to those on each target. */
function count(scores: readonly Json[], reading: Omit<ReadingContext, "position">, votes: Map<string, Vote[]>): void {
  for (const score of scores) {
    const vote = voteOf(score, reading);
    if (vote === undefined) continue;
    const target = targetOf(score);
    const found = votes.get(target);
    if (found === undefined) votes.set(target, [vote]);
    else found.push(vote);
  }
}

const thumbOfVotes = (votes: readonly Vote[]): Thumb => majority(votes.map(({ up }) => up));

function ratingOf(record: Json | undefined, id: string | number, thumb: Thumb): Finding {
  return {
    id,
    thumb,
    turns: () => (record === undefined ? "answer-missing" : turnsOf(record.input, record.output)),
    model: textOr(record?.model, undefined),
    day: dayOf(record?.timestamp ?? record?.startTime),
  };
}

/** A row of a table: its votes stand in the column of the score, unless the scores themselves are in the files. */
function* rowFindings(
  record: Json,
  { names, thumbOf }: Omit<ReadingContext, "position">,
  votes: readonly Vote[] | undefined,
  position: string | number,
): Generator<Finding> {
  const given = fromCell(member(record, names.label ?? ""));
  const isEmpty = given === undefined || given === null || given === "" || (Array.isArray(given) && given.length === 0);
  if (votes !== undefined) yield ratingOf(record, idOr(record.id, position), thumbOfVotes(votes));
  else if (isEmpty) yield "unrated";
  else {
    // Equal values are merged into one, so that a list says which values there were and not how often.
    const thumb = majority((Array.isArray(given) ? given : [given]).map(thumbOf));
    yield ratingOf(record, idOr(record.id, position), thumb);
  }
}

/** A single trace: its scores are about the trace, whose texts are those of its root, or about an observation. */
function* traceFindings(record: Json, reading: Omit<ReadingContext, "position">): Generator<Finding> {
  const observations = listOf(record.observations).filter(isObject);
  const votes = new Map<string, Vote[]>();
  count(listOf(record.scores).filter(isObject), reading, votes);
  const roots = observations.filter(({ parentObservationId }) => textOr(parentObservationId, "") === "");
  const hasTexts = (record.output ?? null) !== null;
  const whole = hasTexts ? record : roots.length === 1 ? roots[0] : undefined;
  for (const [target, own] of votes) {
    const observation = observations.find(({ id }) => id === target);
    const isOfTrace = target === record.id || observations.some(({ traceId }) => traceId === target);
    yield ratingOf(observation ?? (isOfTrace ? whole : undefined), target, thumbOfVotes(own));
  }
  if (votes.size === 0) yield "unrated";
}

function reader(reading: Omit<ReadingContext, "position">): JoinedReader {
  const votes = new Map<string, Vote[]>();
  const rows = new Set<string>();
  /** The first score of each target, by its id. */
  const firsts = new Map<string, unknown>();
  const collected = (record: Json) => {
    for (const one of pageOf(record) ?? [record]) {
      if (isTrace(one)) continue;
      if (isRow(one)) rows.add(textOr(one.id, ""));
      else {
        count([one], reading, votes);
        if (votes.has(targetOf(one)) && !firsts.has(targetOf(one))) firsts.set(targetOf(one), one.id);
      }
    }
  };
  function* findings(record: Json, position: string | number): Generator<Finding> {
    for (const [i, one] of (pageOf(record) ?? []).entries()) yield* findings(one, `${position}/${i + 1}`);
    if (isTrace(record)) yield* traceFindings(record, reading);
    else if (isRow(record)) yield* rowFindings(record, reading, votes.get(textOr(record.id, "")), position);
    else if (isScore(record)) {
      // A score whose texts are there is told with them. Of several scores without texts the first tells it.
      const target = targetOf(record);
      if (rows.has(target) || firsts.get(target) !== record.id || !votes.has(target)) return;
      yield ratingOf(undefined, idOr(record.id, position), thumbOfVotes(votes.get(target) ?? []));
    }
  }
  return { passes: [collected], findings };
}

function ratingNames(record: Json): readonly string[] {
  const page = pageOf(record);
  if (page !== undefined) return page.flatMap(ratingNames);
  if (isTrace(record)) return listOf(record.scores).map((score) => textOr(member(score, "name"), ""));
  return isRow(record) ? Object.keys(record).filter((name) => !columns.has(name)) : [textOr(record.name, "")];
}

export const langfuseShapes: readonly Shape[] = [
  {
    name: "Langfuse traces",
    lookedFor:
      "id, timestamp, environment, input, output and a column for the score; observations and scores; or traceId, name, dataType and source of scores",
    matches: (record) => isKnown(record) || (pageOf(record)?.every(isKnown) ?? false),
    joined: reader,
    named: ["label"],
    ratingNames,
  },
];
