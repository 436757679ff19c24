/**
 * LibreChat: the export of a conversation, and the collection "messages" of its database as mongoexport writes it. Both
 * have the same messages. Sources: data-schemas/src/schema/message.ts, useExportConversation.ts, useBuildMessageTree.ts.
 */
import { contentOf } from "./forms.ts";
import { thumbAmong } from "./thumbs.ts";
import { flattened, MessageTable, pathTo, type TreeNode } from "./tree.ts";
import type { Finding, JoinedReader, Json, Reason, Shape, Turn } from "./types.ts";
import { dayOf, holds, listOf, member, textOr, timeOf } from "./values.ts";

/** The parent of LibreChat's first messages (NO_PARENT). */
const noParent = "00000000-0000-0000-0000-000000000000";

/** LibreChat puts a space between parts unless one is there. */
function joinParts(texts: readonly string[]): string {
  return texts.reduce(
    (whole, text) => (whole === "" || /\s$/.test(whole) || /^\s/.test(text) ? whole + text : `${whole} ${text}`),
    "",
  );
}

function libreChatTurn(message: Json): Turn {
  const { text, faults } = contentOf(holds(message.content) ? message.content : message.text, joinParts);
  const isFaulty = (fault: Reason, condition: boolean): Reason[] => (condition ? [fault] : []);
  return {
    role: message.isCreatedByUser === true ? "user" : "assistant",
    text,
    faults: [
      ...faults,
      ...isFaulty("unfinished", message.unfinished === true || message.error === true),
      ...isFaulty("edited", message.isUserSubmitted === true || holds(message.userSubmittedPaths)),
      ...isFaulty("attachment", holds(message.files) || holds(message.attachments)),
      // What was quoted stood before the question when it was sent.
      ...isFaulty("context-missing", holds(message.quotes)),
    ],
  };
}

const idOf = (message: Json): string => textOr(message.messageId, "");

function parentOf(message: Json): string | undefined {
  const parent = textOr(message.parentMessageId, noParent);
  return parent === noParent ? undefined : parent;
}

function systemTurn(promptPrefix: unknown): Turn | undefined {
  const text = textOr(promptPrefix, "");
  return text === "" ? undefined : { role: "system", text };
}

const isRated = (message: Json): boolean => (member(message, "feedback", "rating") ?? null) !== null;

/** @param conversation its id, which a message of a conversation's export need not have */
function* findingOf(
  message: Json,
  conversation: unknown,
  nodeOf: (id: string) => TreeNode | undefined,
  first: Turn | undefined,
): Generator<Finding> {
  if (!isRated(message)) {
    if (message.isCreatedByUser !== true) yield "unrated";
    return;
  }
  const id = idOf(message);
  yield {
    id,
    thumb: thumbAmong(member(message, "feedback", "rating"), ["thumbsUp"], ["thumbsDown"]),
    turns: () => pathTo(id, nodeOf, first),
    answer: `librechat ${textOr(conversation, "")} ${id}`,
    time: timeOf(message.updatedAt) ?? 0,
    model: textOr(message.model, undefined),
    day: dayOf(message.updatedAt ?? message.createdAt),
  };
}

function* conversationFindings(record: Json): Generator<Finding> {
  const list = holds(record.messages) ? record.messages : record.messagesTree;
  const messages = new Map<string, Json>();
  for (const message of flattened(listOf(list), "children")) {
    if (!messages.has(idOf(message))) messages.set(idOf(message), message);
  }
  const nodeOf = (id: string): TreeNode | undefined => {
    const message = messages.get(id);
    return message === undefined ? undefined : { parent: parentOf(message), turn: () => libreChatTurn(message) };
  };
  const first = systemTurn(member(record, "options", "promptPrefix"));
  for (const message of messages.values()) yield* findingOf(message, record.conversationId, nodeOf, first);
}

const isMessage = (record: Json) => "messageId" in record && "conversationId" in record && "isCreatedByUser" in record;
/** Documents of the collection "conversations", which keep what a conversation's messages have in common. */
const isConversation = (record: Json) => "conversationId" in record && "_id" in record && !("messageId" in record);

function collectionReader(): JoinedReader {
  const table = new MessageTable();
  const firsts = new Map<string, Turn>();
  const placed = (record: Json) => {
    if (isMessage(record)) return table.place(idOf(record), parentOf(record), isRated(record));
    const first = systemTurn(record.promptPrefix);
    if (first !== undefined) firsts.set(textOr(record.conversationId, ""), first);
  };
  const kept = (record: Json) => {
    if (isMessage(record)) table.keep(idOf(record), () => libreChatTurn(record));
  };
  function* passes() {
    yield placed;
    if (table.close()) yield kept;
  }
  return {
    passes: passes(),
    findings: (record) => {
      if (!isMessage(record)) return [];
      const conversation = record.conversationId;
      const first = firsts.get(textOr(conversation, ""));
      const findings = findingOf(record, conversation, table.nodeOf, first);
      return table.found(idOf(record), () => libreChatTurn(record), findings);
    },
  };
}

export const libreChatShapes: readonly Shape[] = [
  {
    name: "LibreChat messages",
    lookedFor: "messageId, conversationId and isCreatedByUser",
    matches: (record) => isMessage(record) || isConversation(record),
    joined: collectionReader,
    note: "LibreChat keeps the instructions of a conversation in its collection conversations; rows begin with them where that collection is exported into the same folder",
  },
  {
    name: "LibreChat conversation",
    lookedFor: "conversationId and messages",
    matches: (record) =>
      "conversationId" in record && (Array.isArray(record.messages) || Array.isArray(record.messagesTree)),
    findings: conversationFindings,
  },
];
