/** Programs that export whole conversations with thumbs on their messages: Chainlit, chat-ui; LibreChat has its own file. */
import { contentOf, roleOf } from "./forms.ts";
import { thumbAmong } from "./thumbs.ts";
import type { Finding, Json, Shape, Turn } from "./types.ts";
import { dayOf, fromCell, idOr, isObject, listOf, member, textOr, timeOf } from "./values.ts";

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
      thumb: thumbAmong(given, [1], [0]),
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
      thumb: thumbAmong(score, [1], [-1]),
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
