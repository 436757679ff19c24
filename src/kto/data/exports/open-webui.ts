/**
 * Open WebUI: the export of feedback, the export of chats, and what both have in common with its database
 * (`open-webui-database.ts`). Sources: handleFeedback in ResponseMessage.svelte, models/feedbacks.py, models/chats.py.
 */
import { contentOf, roleOf } from "./forms.ts";
import { thumbAmong } from "./thumbs.ts";
import { pathTo, type TreeNode } from "./tree.ts";
import type { Finding, Json, Rating, Reason, Shape, Turn } from "./types.ts";
import { dayOf, holds, idOr, isObject, member, textOr, timeOf } from "./values.ts";

const thumbOf = (value: unknown) => thumbAmong(value, [1, "1"], [-1, "-1"]);

/**
 * The turns up to a message of a chat.
 *
 * @param isSnapshot whether the chat was stored when the message was rated, so that its texts are the rated ones
 */
function chatTurns(chat: unknown, id: string, isSnapshot: boolean): readonly Turn[] | Reason {
  const messages = member(chat, "history", "messages");
  const own = textOr(member(chat, "params", "system"), "");
  const system = own === "" ? textOr(member(chat, "system"), "") : own;
  const nodeOf = (name: string): TreeNode | undefined => {
    const message = member(messages, name);
    if (!isObject(message)) return undefined;
    return { parent: textOr(message.parentId, undefined), turn: () => turnOf(message, isSnapshot) };
  };
  return pathTo(id, nodeOf, system === "" ? undefined : { role: "system", text: system });
}

function turnOf(message: Json, isSnapshot: boolean): Turn {
  const { text, faults } = contentOf(message.content);
  const { error, originalContent: original } = message;
  const failed = message.done === false || (error !== undefined && error !== null && error !== false);
  const changed = !isSnapshot && original !== undefined && original !== null && original !== message.content;
  return {
    role: roleOf(message.role),
    text,
    faults: [
      ...faults,
      ...(failed ? (["unfinished"] as const) : []),
      ...(changed ? (["edited"] as const) : []),
      ...(holds(message.files) ? (["attachment"] as const) : []),
    ],
    cites: holds(message.sources) || holds(message.citations),
  };
}

/** Names an answer in the export of feedback and in that of chats alike, since a user may give both. */
function answerName(chatId: unknown, messageId: string): string {
  return `open-webui ${textOr(chatId, "")} ${messageId}`;
}

/** The thumb that a record of feedback gives. `currentChat` is the chat as it is today, where there is no snapshot. */
export function feedbackRating(record: Json, position: number, currentChat?: () => unknown): Rating {
  const messageId = textOr(member(record, "meta", "message_id"), "");
  const rated = record.updated_at ?? record.created_at;
  const time = timeOf(rated);
  return {
    id: idOr(record.id, position),
    thumb: thumbOf(member(record, "data", "rating")),
    turns: () => {
      const snapshot = member(record, "snapshot", "chat", "chat");
      const isUsable = isObject(member(snapshot, "history", "messages"));
      return chatTurns(isUsable ? snapshot : currentChat?.(), messageId, isUsable);
    },
    answer: answerName(member(record, "meta", "chat_id"), messageId),
    rater: textOr(record.user_id, ""),
    ...(time === undefined ? {} : { time }),
    model: textOr(member(record, "data", "model_id"), undefined),
    day: dayOf(rated),
  };
}

/** A message of the assistant in a chat; `feedbackId` names its record of feedback. */
export interface ChatThumb {
  readonly messageId: string;
  readonly feedbackId: string | undefined;
  readonly timestamp: number;
  readonly rating: Rating;
}

/** The thumbs of a chat in the order of its messages, and "unrated" for other answers. */
export function* chatThumbs(record: Json): Generator<ChatThumb | "unrated"> {
  const { chat } = record;
  const messages = member(chat, "history", "messages");
  const earliest = new Map<string, { id: string; timestamp: number }>();
  const entries = Object.entries(isObject(messages) ? messages : {});
  const timestampOf = (message: unknown) => timeOf(member(message, "timestamp")) ?? 0;
  for (const [id, message] of entries) {
    const feedbackId = textOr(member(message, "feedbackId"), undefined);
    if (feedbackId === undefined) continue;
    const timestamp = timestampOf(message);
    const other = earliest.get(feedbackId);
    if (other === undefined || timestamp < other.timestamp) earliest.set(feedbackId, { id, timestamp });
  }
  for (const [messageId, message] of entries) {
    const given = member(message, "annotation", "rating");
    if (given === undefined || given === null || given === 0) {
      if (member(message, "role") === "assistant") yield "unrated";
      continue;
    }
    const feedbackId = textOr(member(message, "feedbackId"), undefined);
    const timestamp = timestampOf(message);
    // "Save As Copy" copies the thumb to a text that nobody rated.
    const isCopy = feedbackId !== undefined && earliest.get(feedbackId)?.id !== messageId;
    const rating: Rating = {
      id: messageId,
      thumb: thumbOf(given),
      turns: () => chatTurns(chat, messageId, false),
      faults: isCopy ? ["edited"] : [],
      answer: answerName(record.id, messageId),
      rater: textOr(record.user_id, ""),
      time: timestamp,
      model: textOr(member(message, "selectedModelId"), textOr(member(message, "model"), undefined)),
      day: dayOf(member(message, "timestamp")),
    };
    yield { messageId, feedbackId, timestamp, rating };
  }
}

function* chatFindings(record: Json): Generator<Finding> {
  for (const thumb of chatThumbs(record)) yield thumb === "unrated" ? thumb : thumb.rating;
}

export const openWebUiShapes: readonly Shape[] = [
  {
    name: "Open WebUI feedback",
    lookedFor: "data, meta and snapshot",
    matches: (record) => "data" in record && "meta" in record && ("snapshot" in record || record.type === "rating"),
    findings: (record, { position }) => [feedbackRating(record, position)],
    newestFirst: true,
  },
  {
    name: "Open WebUI chats",
    lookedFor: "chat.history.messages",
    matches: ({ chat }) => isObject(member(chat, "history", "messages")),
    findings: chatFindings,
    newestFirst: true,
  },
];
