/**
 * Exports of chat programs of any size, in each program's own form, made of numbered texts; the last answer of a
 * conversation is rated, of LibreChat both. `large-export.ts` writes them.
 */

const filler = "the quick brown fox jumps over the lazy dog ".repeat(18);
const text = (name: string, i: number) => `${name} ${i}: ${filler}`;
const dateOf = (i: number) => new Date(1764000000000 + 1000 * i).toISOString();
const isDown = (i: number) => i % 3 === 0;
const messages = (names: readonly string[], i: number) =>
  names.map((name, k) => ({ role: k % 2 === 0 ? "user" : "assistant", content: text(name, i) }));
const question = (i: number) => messages(["question", "answer", "more"], i);

/** A conversation's records, by its number, each some kB. */
export interface LargeShape {
  readonly records: (i: number) => readonly unknown[];
  /** What stands before and behind the records where they are one list; otherwise each is a line. */
  readonly around?: readonly [before: string, behind: string];
  /** The file's ending. Default json; of csv the records are lists of cells, the first line is `header`. */
  readonly ending?: "json" | "csv" | "db";
  readonly header?: readonly string[];
  /** Options of the command. */
  readonly words?: readonly string[];
}

const list = ["[", "]"] as const;

/** Open WebUI's chat, which is stored as a tree and as a list. */
function webUiChat(i: number) {
  const tree = {
    [`q${i}`]: { id: `q${i}`, parentId: null, role: "user", content: text("question", i) },
    [`a${i}`]: { id: `a${i}`, parentId: `q${i}`, role: "assistant", content: text("answer", i), done: true },
    [`r${i}`]: { id: `r${i}`, parentId: `a${i}`, role: "user", content: text("more", i) },
    [`b${i}`]: { id: `b${i}`, parentId: `r${i}`, role: "assistant", content: text("last", i), done: true },
  };
  const history = { messages: tree, currentId: `b${i}` };
  return { id: "", title: "Large", params: {}, history, messages: Object.values(tree) };
}

const webUiFeedback = (i: number) => ({
  id: `record-${i}`,
  user_id: `user-${i % 100}`,
  type: "rating",
  data: { rating: isDown(i) ? -1 : 1, model_id: "model" },
  meta: { message_id: `b${i}`, chat_id: `chat-${i}` },
  snapshot: { chat: { id: `chat-${i}`, chat: webUiChat(i) } },
  created_at: 1764000000 + i,
  updated_at: 1764000000 + i,
});

export const largeShapes = {
  "open-webui": { around: list, records: (i) => [webUiFeedback(i)] },
  /** The same as rows of the table feedback. */
  "open-webui-database": { ending: "db", records: (i) => [webUiFeedback(i)] },
  /** Messages with a record each, as mongoexport writes them. */
  librechat: {
    records: (i) => {
      const of = { conversationId: `00000000-0000-4000-8000-${String(i).padStart(12, "0")}` };
      const ids = Array.from({ length: 4 }, (_, k) => of.conversationId.replace("-4000-", `-400${k + 1}-`));
      return ids.map((messageId, k) => ({
        ...{ _id: { $oid: `${k}${String(i).padStart(23, "0")}` }, messageId, ...of },
        ...{ parentMessageId: ids[k - 1] ?? "00000000-0000-0000-0000-000000000000", isCreatedByUser: k % 2 === 0 },
        ...{ text: text(`part ${k}`, i), createdAt: { $date: dateOf(i) }, updatedAt: { $date: dateOf(i) } },
        ...(k % 2 === 1 ? { feedback: { rating: isDown(i) ? "thumbsDown" : "thumbsUp" }, model: "model" } : {}),
      }));
    },
  },
  oasst: {
    words: ["--column_mapping", '{"label": "quality"}', "--label_threshold", "0.5"],
    records: (i) =>
      [0, 1, 2, 3].map((k) => ({
        ...{ message_id: `m${i}-${k}`, parent_id: k === 0 ? null : `m${i}-${k - 1}`, created_date: dateOf(i) },
        ...{ text: text(`part ${k}`, i), role: k % 2 === 0 ? "prompter" : "assistant", message_tree_id: `m${i}-0` },
        ...(k === 3 ? { labels: { name: ["quality"], value: [(i % 3) / 2] } } : {}),
      })),
  },
  langfuse: {
    words: ["--column_mapping", '{"label": "thumb"}'],
    records: (i) => [
      {
        ...{ id: `trace-${i}`, timestamp: dateOf(i), environment: "default", thumb: [isDown(i) ? 0 : 1] },
        input: { messages: question(i) },
        output: { role: "assistant", content: text("last", i) },
      },
    ],
  },
  /** One object, whose list has an answer of at most 500 characters in each record. */
  dify: {
    around: ['{"export_info": {"app_id": "app-1", "data_source": "dify_feedback_export"}, "feedback_data": [', "]}"],
    records: (i) => [
      {
        ...{
          feedback_id: `00000000-0000-4000-8000-${String(i).padStart(12, "0")}`,
          app_name: "Helpdesk",
          app_id: "app-1",
        },
        ...{ conversation_id: `00000000-0000-4001-8000-${String(i).padStart(12, "0")}`, conversation_name: "Help" },
        ...{ message_id: `00000000-0000-4002-8000-${String(i).padStart(12, "0")}`, user_query: text("question", i) },
        ...{ ai_response: text("last", i).slice(0, 400), feedback_rating: isDown(i) ? "👎" : "👍" },
        ...{ feedback_rating_raw: isDown(i) ? "dislike" : "like", feedback_comment: "", feedback_source: "user" },
        ...{ feedback_date: dateOf(i), message_date: dateOf(i), from_account_name: "", has_comment: "No" },
        ...{ from_end_user_id: `user-${i % 100}` },
      },
    ],
  },
  pairs: {
    records: (i) => [
      {
        ...{ question_id: `q${i}`, model_a: "alpha", model_b: "beta", winner: isDown(i) ? "model_b" : "model_a" },
        ...{ conversation_a: messages(["question", "first"], i), conversation_b: messages(["question", "second"], i) },
        ...{ judge: `judge-${i % 100}`, turn: 1, anony: true, language: "English", tstamp: 1764000000 + i },
      },
    ],
  },
  gradio: {
    ending: "csv",
    header: ["conversation", "index", "value", "flag", "timestamp"],
    records: (i) => [
      [
        JSON.stringify(
          messages(["question", "answer", "more", "last"], i).map(({ role, content }) => ({
            ...{ role, metadata: null, content: [{ text: content, type: "text" }], options: null },
          })),
        ),
        ...["3", isDown(i) ? "Dislike" : "Like", dateOf(i).replace("T", " ").replace("Z", "456")],
      ],
    ],
  },
  anythingllm: {
    around: list,
    records: (i) => [
      {
        ...{ id: i + 1, prompt: text("question", i), response: text("last", i), sent_at: dateOf(i), attachments: [] },
        ...{ workspace: "handbook", username: `user-${i % 100}`, rating: isDown(i) ? "BAD" : "GOOD" },
      },
    ],
  },
  argilla: {
    around: list,
    words: ["--column_mapping", '{"prompt": "chat", "completion": "reply", "label": "thumb"}'],
    records: (i) => [
      {
        ...{ id: `record-${i}`, fields: { chat: question(i), reply: text("last", i) }, metadata: {}, suggestions: {} },
        ...{ responses: { thumb: [{ value: isDown(i) ? "down" : "up", user_id: `user-${i % 100}` }] }, vectors: {} },
        ...{ _server_id: `server-${i}` },
      },
    ],
  },
  langsmith: {
    words: ["--column_mapping", '{"label": "thumb"}'],
    records: (i) => [
      {
        ...{ id: `run-${i}`, run_type: "llm", start_time: dateOf(i), error: null, parent_run_id: null },
        ...{ inputs: { messages: question(i) }, outputs: { role: "assistant", content: text("last", i) } },
        ...{ feedback_stats: { thumb: { n: 1, avg: isDown(i) ? 0 : 1 } } },
      },
    ],
  },
  "label-studio": {
    around: list,
    words: ["--column_mapping", '{"prompt": "chat", "completion": "reply", "label": "thumb"}'],
    records: (i) => [
      {
        ...{ id: i, data: { chat: question(i), reply: text("last", i) }, predictions: [], created_at: dateOf(i) },
        annotations: [
          {
            ...{ id: i, was_cancelled: false, ground_truth: false },
            result: [
              {
                from_name: "thumb",
                to_name: "reply",
                type: "choices",
                value: { choices: [isDown(i) ? "bad" : "good"] },
              },
            ],
          },
        ],
      },
    ],
  },
  chainlit: {
    around: list,
    records: (i) => [
      {
        ...{ id: `thread-${i}`, createdAt: dateOf(4 * i), name: "Large", userId: `user-${i % 100}`, elements: [] },
        steps: messages(["question", "answer", "more", "last"], i).map(({ role, content }, k) => ({
          ...{ id: `step-${i}-${k}`, threadId: `thread-${i}`, type: `${role}_message`, createdAt: dateOf(4 * i + k) },
          ...{ output: content, feedback: k === 3 ? { forId: `step-${i}-3`, value: isDown(i) ? 0 : 1 } : null },
        })),
      },
    ],
  },
  "chat-ui": {
    around: list,
    records: (i) => [
      {
        ...{ _id: `conversation-${i}`, rootMessageId: `m${i}-0`, preprompt: "Be brief.", model: "model" },
        messages: messages(["question", "answer", "more", "last"], i).map(({ role, content }, k) => ({
          ...{ id: `m${i}-${k}`, from: role, content, ancestors: Array.from({ length: k }, (_, j) => `m${i}-${j}`) },
          ...{ updatedAt: dateOf(4 * i + k), ...(k === 3 ? { score: isDown(i) ? -1 : 1 } : {}) },
        })),
      },
    ],
  },
} as const satisfies Readonly<Record<string, LargeShape>>;

export type LargeShapeName = keyof typeof largeShapes;
