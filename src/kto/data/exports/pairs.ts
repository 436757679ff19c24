/** Pairs of answers with a winner, and the votes of FastChat's logs: Chatbot Arena, PandaLM, LLMBar. */
import { contentOf, messageOf, roleOf } from "./forms.ts";
import { thumbAmong } from "./thumbs.ts";
import type { Finding, Json, ReadingContext, Reason, Shape, Thumb, Turn } from "./types.ts";
import { dayOf, fromCell, idOr, isObject, listOf, member, textOr } from "./values.ts";

/** What was said of a pair: a side that won, both were bad, neither was better, or nothing that can be read. */
type Winner = "a" | "b" | "bad" | "tie" | Exclude<Thumb, boolean>;

interface Side {
  readonly turns: () => readonly Turn[] | Reason;
  readonly model?: string | undefined;
}

/** The ratings of both sides: the winner's answer is up and the other's down. */
export function* sides(id: string | number, winner: Winner, a: Side, b: Side, day?: string): Generator<Finding> {
  for (const [name, side] of [
    ["a", a],
    ["b", b],
  ] as const) {
    const isDecided = winner === "a" || winner === "b";
    const thumb = isDecided ? winner === name : winner === "bad" || winner === "tie" ? false : winner;
    yield { id: `${id}/${name}`, thumb, faults: winner === "tie" ? ["tie"] : [], ...side, day };
  }
}

const arenaWinners: Readonly<Record<string, Winner>> = {
  model_a: "a",
  model_b: "b",
  tie: "tie",
  "tie (bothbad)": "bad",
  both_bad: "bad",
  bothbad: "bad",
};

function messagesOf(conversation: unknown): readonly Turn[] | Reason {
  const list = fromCell(conversation);
  const turns = listOf(list)
    .map(messageOf)
    .filter((turn) => turn !== undefined);
  return Array.isArray(list) && turns.length === list.length ? turns : "unreadable";
}

function arenaFindings(record: Json, { position }: ReadingContext): Iterable<Finding> {
  const winner = textOr(record.winner, "");
  return sides(
    idOr(record.question_id ?? record.id, position),
    (Object.hasOwn(arenaWinners, winner) ? arenaWinners[winner] : undefined) ?? "no-rating",
    { turns: () => messagesOf(record.conversation_a), model: textOr(record.model_a, undefined) },
    { turns: () => messagesOf(record.conversation_b), model: textOr(record.model_b, undefined) },
    dayOf(record.tstamp ?? record.timestamp),
  );
}

/** The set of Kaggle's competition: prompts and answers are lists of texts, one for each turn, as JSON. */
function kaggleFindings(record: Json, { position }: ReadingContext): Iterable<Finding> {
  const won = (name: string) => ["1", "1.0"].includes(String(record[name]));
  const winner = won("winner_model_a") ? "a" : won("winner_model_b") ? "b" : won("winner_tie") ? "tie" : "no-rating";
  const texts = (value: unknown) => listOf(typeof fromCell(value) === "string" ? [value] : fromCell(value));
  const sideTurns = (answers: unknown) => (): readonly Turn[] | Reason => {
    const [asked, said] = [texts(record.prompt), texts(answers)];
    if (asked.length !== said.length) return "unreadable";
    return asked.flatMap((question, i): Turn[] => [
      { role: "user", text: contentOf(question).text },
      { role: "assistant", text: contentOf(said[i]).text },
    ]);
  };
  return sides(
    idOr(record.id, position),
    winner,
    { turns: sideTurns(record.response_a), model: textOr(record.model_a, undefined) },
    { turns: sideTurns(record.response_b), model: textOr(record.model_b, undefined) },
  );
}

function instructionPair(
  record: Json,
  question: unknown,
  id: string | number,
  winner: Winner,
  answers: readonly [unknown, unknown],
) {
  const [a, b] = answers.map((answer) => ({
    turns: (): readonly Turn[] => [
      { role: "user", text: textOr(question, undefined) },
      { role: "assistant", text: textOr(answer, undefined) },
    ],
  }));
  return a === undefined || b === undefined ? [] : sides(id, winner, a, b, dayOf(record.timestamp));
}

/** PandaLM: each of three annotators says 1, 2, or 0 for neither; the majority counts. */
function pandaFindings(record: Json, { position }: ReadingContext): Iterable<Finding> {
  const votes = [record.annotator1, record.annotator2, record.annotator3].map(Number);
  const most = [0, 1, 2].filter((vote) => 2 * votes.filter((one) => one === vote).length > votes.length);
  const winner = most[0] === undefined ? "disagree" : ([`tie`, "a", "b"] as const)[most[0]];
  const input = textOr(record.input, "");
  const question = input === "" ? record.instruction : `${textOr(record.instruction, "")}\n\n${input}`;
  return instructionPair(record, question, idOr(record.idx, position), winner ?? "no-rating", [
    record.response1,
    record.response2,
  ]);
}

function llmBarFindings(record: Json, { position }: ReadingContext): Iterable<Finding> {
  const winner = Number(record.label) === 1 ? "a" : Number(record.label) === 2 ? "b" : "no-rating";
  return instructionPair(record, record.input, idOr(record.id, position), winner, [record.output_1, record.output_2]);
}

/** FastChat's log of one model: a vote is about the last answer of `state`. */
function* logFindings(record: Json, { position }: ReadingContext): Generator<Finding> {
  if (record.type === "chat") return;
  const { state } = record;
  const messages = listOf(member(state, "messages"));
  const speakers = listOf(member(state, "roles"));
  const system = textOr(member(state, "system_message"), "");
  const turns = messages.map((message, i): Turn => {
    const [speaker, said] = listOf(message);
    const role = speakers.includes(speaker) ? ["user", "assistant"][speakers.indexOf(speaker)] : roleOf(speaker);
    // With images the text is the first of a list.
    const isPlain = said === null || typeof said === "string";
    return { role: role ?? (i % 2 === 0 ? "user" : "assistant"), ...contentOf(isPlain ? said : { file: said }) };
  });
  const conversation = member(state, "conv_id");
  yield {
    id: idOr(conversation, position),
    thumb: thumbAmong(record.type, ["upvote"], ["downvote"]),
    turns: () => (system === "" ? turns : [{ role: "system", text: system }, ...turns]),
    ...(typeof conversation === "string" ? { answer: `fastchat ${conversation} ${messages.length}` } : {}),
    model: textOr(record.model, undefined),
    day: dayOf(record.tstamp),
  };
}

const has = (record: Json, ...names: readonly string[]) => names.every((name) => name in record);

export const pairShapes: readonly Shape[] = [
  {
    name: "Chatbot Arena battles",
    lookedFor: "conversation_a, conversation_b and winner",
    matches: (record) => has(record, "conversation_a", "conversation_b", "winner"),
    findings: arenaFindings,
    columns: [
      "question_id",
      "id",
      "model_a",
      "model_b",
      "winner",
      "conversation_a",
      "conversation_b",
      "tstamp",
      "timestamp",
    ],
  },
  {
    name: "Chatbot Arena battles of Kaggle",
    lookedFor: "response_a, response_b and winner_model_a",
    matches: (record) => has(record, "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
    findings: kaggleFindings,
    columns: ["response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"],
  },
  {
    name: "FastChat log",
    lookedFor: "type, tstamp and state",
    matches: (record) => has(record, "type", "tstamp") && (isObject(record.state) || Array.isArray(record.states)),
    findings: logFindings,
  },
  {
    name: "PandaLM annotations",
    lookedFor: "response1, response2 and annotator1",
    matches: (record) => has(record, "instruction", "response1", "response2", "annotator1"),
    findings: pandaFindings,
  },
  {
    name: "LLMBar pairs",
    lookedFor: "output_1, output_2 and label",
    matches: (record) => has(record, "input", "output_1", "output_2", "label"),
    findings: llmBarFindings,
  },
];
