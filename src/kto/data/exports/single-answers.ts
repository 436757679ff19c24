/** Programs whose record holds one rated answer: Dify, AnythingLLM, and the log of Gradio's chat interface. */
import { platform } from "../../../engine/platform/index.ts";
import { contentOf, roleOf } from "./forms.ts";
import { thumbAmong } from "./thumbs.ts";
import type { Finding, Json, Reason, Shape, Turn } from "./types.ts";
import { dayOf, fromCell, holds, idOr, listOf, member, textOr, timeOf } from "./values.ts";

/** A question and its answer, both texts. */
function twoTurns(question: unknown, answer: unknown, faults: readonly Reason[] = []): readonly Turn[] {
  const said = (value: unknown) => (value === undefined || value === null ? "" : textOr(value, undefined));
  return [
    { role: "user", text: said(question) },
    { role: "assistant", text: said(answer), faults },
  ];
}

function difyFinding(record: Json, position: number): Finding {
  const answer = textOr(record.ai_response, "");
  const message = textOr(record.message_id, "");
  const conversation = textOr(record.conversation_id, "");
  // The export cuts to 500 characters as Python counts them, and adds three dots.
  const isCut = answer.length >= 503 && answer.endsWith("...") && [...answer].length === 503;
  const who = [record.feedback_source, record.from_account_name, record.from_end_user_id].join(" ");
  const time = timeOf(record.feedback_date);
  return {
    id: idOr(record.feedback_id, position),
    thumb: thumbAmong(record.feedback_rating_raw, ["like"], ["dislike"]),
    turns: () => twoTurns(record.user_query, answer, isCut ? ["truncated"] : []),
    ...(message === "" ? {} : { answer: `dify ${message}`, rater: who }),
    ...(time === undefined ? {} : { time }),
    ...(conversation === "" ? {} : { thread: { id: conversation, message, time: timeOf(record.message_date) ?? 0 } }),
    day: dayOf(record.feedback_date),
  };
}

function* anythingLlmFindings(record: Json, position: number): Generator<Finding> {
  const { rating } = record;
  if (rating === "--" || rating === null || rating === "") {
    yield "unrated";
    return;
  }
  const attached = holds(fromCell(record.attachments));
  yield {
    id: idOr(record.id, position),
    thumb: thumbAmong(rating, ["GOOD", true], ["BAD", false]),
    turns: () => twoTurns(record.prompt, record.response, attached ? ["attachment"] : []),
    day: dayOf(record.sent_at),
  };
}

/** A message of Gradio's, with its position in `conversation`, by which the log names the rated answer. */
interface GradioMessage {
  readonly role: string | undefined;
  readonly content: unknown;
  readonly isThought: boolean;
  readonly place: string;
}

function gradioMessages(conversation: readonly unknown[]): GradioMessage[] {
  return conversation.flatMap((entry, i): GradioMessage[] => {
    // Gradio 5 also has pairs of question and answer; either is null where it is absent.
    if (Array.isArray(entry)) {
      return ["user", "assistant"].flatMap((role, side) => {
        const content: unknown = entry[side];
        if (content === null || content === undefined) return [];
        // A file is a list inside the pair.
        return [
          {
            role,
            content: Array.isArray(content) ? { file: content } : content,
            isThought: false,
            place: `${i},${side}`,
          },
        ];
      });
    }
    const title = member(entry, "metadata", "title");
    const isThought = title !== undefined && title !== null;
    return [{ role: roleOf(member(entry, "role")), content: member(entry, "content"), isThought, place: String(i) }];
  });
}

/** Joins what the assistant said in one go, without its thoughts; every message of a user is a turn. */
function gradioTurns(messages: readonly GradioMessage[]): Turn[] {
  const turns: { role: string | undefined; text: string | undefined; faults: Reason[] }[] = [];
  for (const [i, { role, content, isThought }] of messages.entries()) {
    const { text, faults } = isThought ? { text: "", faults: [] } : contentOf(content);
    const run = role === "assistant" && messages[i - 1]?.role === role ? turns.at(-1) : undefined;
    if (run === undefined) turns.push({ role, text, faults: [...faults] });
    else {
      const isKnown = run.text !== undefined && text !== undefined;
      run.text = isKnown ? [run.text, text].filter((part) => part !== "").join("\n\n") : undefined;
      run.faults.push(...faults);
    }
  }
  return turns;
}

function gradioFinding({ conversation, index, value, timestamp }: Json, position: number): Finding {
  const messages = gradioMessages(listOf(fromCell(conversation)));
  const place = listOf(fromCell(index)).length > 0 ? listOf(fromCell(index)).join(",") : String(index).trim();
  const at = messages.findIndex((message) => message.place === place);
  let end = at + 1;
  while (messages[at]?.role === "assistant" && messages[end]?.role === "assistant") end++;
  const isThumb = value === "Like" || value === "Dislike" || value === "";
  const hash = platform.sha256();
  hash.update(new TextEncoder().encode(JSON.stringify([place, messages.slice(0, end)])));
  return {
    id: position,
    thumb: thumbAmong(value, ["Like"], ["Dislike"]),
    turns: () => (at < 0 ? "answer-missing" : gradioTurns(messages.slice(0, end))),
    // A flag of the app's own neither replaces a thumb nor is replaced by one.
    ...(isThumb ? { answer: `gradio ${hash.digest()}` } : {}),
    ...(timeOf(timestamp) === undefined ? {} : { time: timeOf(timestamp) ?? 0 }),
    day: dayOf(timestamp),
  };
}

export const singleAnswerShapes: readonly Shape[] = [
  {
    name: "Dify feedback",
    lookedFor: "feedback_data, or feedback_id, ai_response and feedback_rating_raw",
    matches: (record) => "ai_response" in record && "feedback_rating_raw" in record,
    findings: (record, { position }) => [difyFinding(record, position)],
    newestFirst: true,
    note: "Dify exports the last question alone: an answer to a follow-up is read as if its question had come first, unless an earlier answer of the conversation is rated too",
  },
  {
    name: "AnythingLLM workspace chats",
    lookedFor: "prompt, workspace, sent_at and rating",
    matches: (record) => ["prompt", "workspace", "sent_at", "rating"].every((name) => name in record),
    findings: (record, { position }) => anythingLlmFindings(record, position),
    note: "AnythingLLM exports neither the chat before a question nor the system prompt nor the documents that the model read, and has no thumb down since July 2024",
  },
  {
    name: "Gradio flagging log",
    lookedFor: "conversation, index and value",
    matches: (record) => ["conversation", "index", "value"].every((name) => name in record),
    findings: (record, { position }) => [gradioFinding(record, position)],
  },
];

/**
 * The names of a csv row's cells where the header is known to be wrong: Gradio's names five columns and writes four.
 *
 * @returns undefined for all other headers
 */
export function correctedHeader(header: readonly string[], cells: number): readonly string[] | undefined {
  const isGradio = header.join() === "conversation,index,value,flag,timestamp" && cells === 4;
  return isGradio ? ["conversation", "index", "value", "timestamp"] : undefined;
}
