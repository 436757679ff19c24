/** Programs that export whole conversations with thumbs on their messages: LibreChat, Chainlit, chat-ui. */
import { contentOf, roleOf } from "./forms.ts";
import { oneOf } from "./thumbs.ts";
import { pathTo, type TreeNode } from "./tree.ts";
import type { Finding, Json, Reason, Shape, Turn } from "./types.ts";
import { dayOf, fromCell, holds, idOr, isObject, listOf, member, textOr, timeOf } from "./values.ts";

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

/** The messages of a conversation, also those that hang below others as "children". */
function* flattened(messages: readonly unknown[]): Generator<Json> {
  const waiting = [...messages].reverse();
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (!isObject(next)) continue;
    yield next;
    for (const child of listOf(next.children).toReversed()) waiting.push(child);
  }
}

function* libreChatFindings(record: Json): Generator<Finding> {
  const list = holds(record.messages) ? record.messages : record.messagesTree;
  const messages = new Map<string, Json>();
  for (const message of flattened(listOf(list))) {
    const id = textOr(message.messageId, "");
    if (!messages.has(id)) messages.set(id, message);
  }
  const prefix = textOr(member(record, "options", "promptPrefix"), "");
  const first: Turn | undefined = prefix === "" ? undefined : { role: "system", text: prefix };
  const nodeOf = (id: string): TreeNode | undefined => {
    const message = messages.get(id);
    if (message === undefined) return undefined;
    const parent = textOr(message.parentMessageId, noParent);
    return { parent: parent === noParent ? undefined : parent, turn: () => libreChatTurn(message) };
  };
  for (const [id, message] of messages) {
    const given = member(message, "feedback", "rating");
    if (given === undefined || given === null) {
      if (message.isCreatedByUser !== true) yield "unrated";
      continue;
    }
    yield {
      id,
      thumb: oneOf(given, ["thumbsUp"], ["thumbsDown"]),
      turns: () => pathTo(id, nodeOf, first),
      answer: `librechat ${textOr(record.conversationId, "")} ${id}`,
      time: timeOf(message.updatedAt) ?? 0,
      model: textOr(message.model, undefined),
      day: dayOf(message.updatedAt ?? message.createdAt),
    };
  }
}

/** Chainlit: the steps of the two speakers in the order of their times are the chat. */
function* chainlitFindings(record: Json): Generator<Finding> {
  const withFiles = new Set(listOf(record.elements).map((element) => member(element, "forId")));
  const steps = listOf(record.steps)
    .filter(isObject)
    .filter(({ type }) => type === "user_message" || type === "assistant_message")
    .map((step) => ({ step, time: timeOf(step.createdAt) ?? 0 }))
    .sort((a, b) => a.time - b.time);
  const turnOf = ({ step }: { readonly step: Json }): Turn => {
    const { text, faults } = contentOf(step.output);
    return {
      role: step.type === "user_message" ? "user" : "assistant",
      text,
      faults: [
        ...faults,
        ...(withFiles.has(step.id) ? (["attachment"] as const) : []),
        ...(step.isError === true ? (["unfinished"] as const) : []),
      ],
    };
  };
  for (const [i, { step, time }] of steps.entries()) {
    const given = member(step, "feedback", "value");
    if (given === undefined || given === null) {
      if (step.type === "assistant_message") yield "unrated";
      continue;
    }
    yield {
      id: idOr(step.id, i + 1),
      thumb: oneOf(given, [1], [0]),
      turns: () => steps.slice(0, i + 1).map(turnOf),
      answer: `chainlit ${textOr(record.id, "")} ${String(step.id)}`,
      time,
      day: dayOf(step.createdAt),
    };
  }
}

function chatUiTurn(message: Json): Turn {
  const { text, faults } = contentOf(message.content);
  return {
    role: roleOf(message.from),
    text,
    faults: message.interrupted === true ? [...faults, "unfinished"] : faults,
  };
}

/** chat-ui: a message lists its ancestors; files without a root message hold one line of conversation. */
function* chatUiFindings(record: Json, position: number): Generator<Finding> {
  const messages = listOf(fromCell(record.messages)).filter(isObject);
  const byId = new Map(messages.map((message) => [textOr(message.id, ""), message]));
  const preprompt = textOr(record.preprompt, "");
  const withSystem = (turns: readonly Turn[]): readonly Turn[] =>
    preprompt === "" || turns[0]?.role === "system" ? turns : [{ role: "system", text: preprompt }, ...turns];
  const isTree = record.rootMessageId !== undefined && record.rootMessageId !== null;
  for (const [i, message] of messages.entries()) {
    const score = message.score;
    if (score === undefined || score === null || score === 0) {
      if (message.from === "assistant") yield "unrated";
      continue;
    }
    const id = textOr(message.id, "");
    yield {
      id: id === "" ? `${position}/${i + 1}` : id,
      thumb: oneOf(score, [1], [-1]),
      turns: () => {
        if (!isTree) return withSystem(messages.slice(0, i + 1).map(chatUiTurn));
        const names = listOf(message.ancestors);
        const path = names.map((name) => byId.get(textOr(name, ""))).filter((one) => one !== undefined);
        if (path.length !== names.length || new Set([...names, id]).size !== names.length + 1) return "broken-path";
        // The root is a message of the system that may say nothing.
        return withSystem([...path, message].map(chatUiTurn));
      },
      model: textOr(record.model, undefined),
      day: dayOf(message.updatedAt ?? message.createdAt),
    };
  }
}

export const conversationShapes: readonly Shape[] = [
  {
    name: "LibreChat conversation",
    lookedFor: "conversationId and messages",
    matches: (record) =>
      "conversationId" in record && (Array.isArray(record.messages) || Array.isArray(record.messagesTree)),
    findings: libreChatFindings,
  },
  {
    name: "Chainlit threads",
    lookedFor: "steps with type, output and feedback",
    matches: ({ steps }) => isObject(listOf(steps)[0]) && "type" in (listOf(steps)[0] as Json),
    findings: chainlitFindings,
  },
  {
    name: "chat-ui conversations",
    lookedFor: "messages with from, content and score",
    matches: ({ messages }) => {
      const [first] = listOf(fromCell(messages));
      return typeof member(first, "from") === "string" && typeof member(first, "content") === "string";
    },
    findings: (record, { position }) => chatUiFindings(record, position),
    columns: ["messages", "preprompt", "model"],
  },
];
