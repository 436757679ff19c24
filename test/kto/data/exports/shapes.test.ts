/**
 * Shapes that have no file among the ten exports, and variants of those that have one, as the programs' sources or
 * documentation write them.
 */
import { describe, expect, it } from "vitest";
import type { ColumnMapping } from "../../../../src/kto/data/columns.ts";
import { shortRows } from "../../../helpers/exports.ts";
import { jsonl, temporaryFolder } from "../../../helpers/folders.ts";
import { kto } from "../../../helpers/streams.ts";

const folder = temporaryFolder();
const read = (name: string, content: unknown, mapping?: ColumnMapping, threshold?: number) =>
  shortRows(folder, name, content, mapping, threshold);

interface Expected {
  readonly rows: readonly (readonly [prompt: string, completion: string, label: boolean])[];
  readonly dropped?: readonly string[];
  readonly unrated?: number;
}

const user = (content: unknown) => ({ role: "user", content });
const assistant = (content: unknown) => ({ role: "assistant", content });

describe("conversations", () => {
  it("Chainlit: 0 is a thumb down, the steps of the two speakers are the chat", async () => {
    const step = (id: string, type: string, output: string, second: number, value?: number) => ({
      ...{ id, type, output, createdAt: `2025-11-24T10:00:0${second}Z`, parentId: "run" },
      ...(value === undefined ? {} : { feedback: { forId: id, value, comment: "mine" } }),
    });
    const steps = [
      step("a2", "assistant_message", "Four.", 4, 0),
      step("q1", "user_message", "1+1?", 1),
      step("run", "run", "", 1),
      step("a1", "assistant_message", "Two.", 2, 1),
      step("q2", "user_message", "And 2+1?", 3),
    ];
    expect(await read("threads.json", [{ id: "t", userIdentifier: "ada@example.org", steps }])).toEqual({
      rows: [
        ["user: 1+1?", "Two.", true],
        ["user: 1+1? | assistant: Two. | user: And 2+1?", "Four.", false],
      ],
      dropped: [],
      unrated: 0,
      shape: "Chainlit threads",
    });
  });

  it("chat-ui: a score of 0 is none, ancestors are the path, a file of the conversation is no attachment", async () => {
    const messages = [
      { id: "s", from: "system", content: "", ancestors: [] },
      { id: "q", from: "user", content: "Hi", ancestors: ["s"], files: [{ name: "x.png" }] },
      { id: "a", from: "assistant", content: "<think>hm</think>Hello", ancestors: ["s", "q"], score: 1 },
      { id: "b", from: "assistant", content: "Go", ancestors: ["s", "q"], score: -1 },
      { id: "c", from: "assistant", content: "Well", ancestors: ["s", "q"], score: 0 },
      { id: "d", from: "assistant", content: "Gone", ancestors: ["s", "lost"], score: 1 },
    ];
    expect(await read("conversations.json", [{ rootMessageId: "s", preprompt: "Be kind.", messages }])).toMatchObject({
      rows: [
        ["user: Hi", "Hello", true],
        ["user: Hi", "Go", false],
      ],
      dropped: ["d broken-path"],
      unrated: 1,
    });
    const [, question, answer] = messages;
    expect((await read("old.jsonl", jsonl([{ preprompt: "Be kind.", messages: [question, answer] }]))).rows).toEqual([
      ["system: Be kind. | user: Hi", "Hello", true],
    ]);
  });

  it("LibreChat: messages below others, parts with spaces between them, quotes and errors", async () => {
    const none = "00000000-0000-0000-0000-000000000000";
    const up = { feedback: { rating: "thumbsUp", tag: "of a copy" } };
    const answers = [
      {
        messageId: "a",
        parentMessageId: "q",
        text: "",
        content: [
          { type: "text", text: "One" },
          { type: "text", text: { value: "two" } },
        ],
        ...up,
      },
      {
        messageId: "b",
        parentMessageId: "q",
        text: "",
        content: [
          { type: "text", text: "One" },
          { type: "error", error: "x" },
        ],
        ...up,
      },
      { messageId: "c", parentMessageId: "q", text: "Fine", feedback: { rating: "sideways" } },
      { messageId: "d", parentMessageId: "q", text: "Fine", feedback: null },
    ];
    const nested = [
      { messageId: "q", parentMessageId: none, isCreatedByUser: true, text: "Count.", children: answers },
    ];
    expect(await read("chat.json", { conversationId: "c", recursive: true, messages: nested })).toEqual({
      rows: [["user: Count.", "One two", true]],
      dropped: ["b unfinished", "c no-rating"],
      unrated: 1,
      shape: "LibreChat conversation",
    });
    const quoted = [{ ...nested[0], quotes: ["said before"], children: [answers[0]] }];
    await expect(read("chat.json", { conversationId: "c", messagesTree: quoted })).rejects.toThrow(/1 context-missing/);
  });
});

describe("pairs", () => {
  const cases: [name: string, records: readonly unknown[], expected: Expected][] = [
    [
      "PandaLM: the majority of three",
      [
        {
          idx: 0,
          instruction: "Add.",
          input: "1 1",
          response1: "2",
          response2: "3",
          annotator1: 1,
          annotator2: 1,
          annotator3: 2,
        },
        {
          idx: 1,
          instruction: "Say.",
          input: "",
          response1: "a",
          response2: "b",
          annotator1: 0,
          annotator2: 0,
          annotator3: 2,
        },
        {
          idx: 2,
          instruction: "Say.",
          input: "",
          response1: "a",
          response2: "b",
          annotator1: 0,
          annotator2: 1,
          annotator3: 2,
        },
      ],
      {
        rows: [
          ["user: Add.\n\n1 1", "2", true],
          ["user: Add.\n\n1 1", "3", false],
        ],
        dropped: ["1/a tie", "1/b tie", "2/a disagree", "2/b disagree"],
      },
    ],
    [
      "LLMBar: label 1 or 2",
      [{ input: "Say hi.", output_1: "Hi", output_2: "No", label: 2 }],
      {
        rows: [
          ["user: Say hi.", "Hi", false],
          ["user: Say hi.", "No", true],
        ],
      },
    ],
    [
      "Kaggle's arena: lists of texts as JSON",
      [
        {
          id: 7,
          model_a: "x",
          model_b: "y",
          prompt: '["Hi", "Again"]',
          response_a: '["Yo", "Yo"]',
          response_b: '["Ho", null]',
          winner_model_a: 1,
          winner_model_b: 0,
          winner_tie: 0,
        },
      ],
      { rows: [["user: Hi | assistant: Yo | user: Again", "Yo", true]], dropped: ["7/b empty"] },
    ],
    [
      "FastChat's log: votes, and a later vote on the same answer",
      [
        { type: "chat", tstamp: 1, model: "m", state: {} },
        ...["upvote", "downvote"].map((type, i) => ({
          ...{ type, tstamp: 1764000000 + i, model: "m", ip: "10.0.0.1" },
          state: {
            conv_id: "k",
            roles: ["USER", "ASSISTANT"],
            system_message: "",
            messages: [
              ["USER", "Hi"],
              ["ASSISTANT", "Yo"],
            ],
          },
        })),
        {
          type: "flag",
          tstamp: 2,
          model: "m",
          state: {
            conv_id: "l",
            roles: ["USER", "ASSISTANT"],
            messages: [
              ["USER", "Hi"],
              ["ASSISTANT", "Yo"],
            ],
          },
        },
      ],
      { rows: [["user: Hi", "Yo", false]], dropped: ["k superseded", "l no-rating"] },
    ],
    [
      "arena: contents of parts",
      [
        {
          id: "x",
          model_a: "a",
          model_b: "b",
          winner: "both_bad",
          conversation_a: [user([{ type: "text", text: "Hi" }]), assistant([{ type: "text", text: "Yo" }])],
          conversation_b: [user([{ type: "image", image: 1 }]), assistant("Ho")],
        },
      ],
      { rows: [["user: Hi", "Yo", false]], dropped: ["x/b attachment"] },
    ],
  ];
  it.each(cases)("%s", async (_, records, { rows, dropped = [] }) => {
    expect(await read("pairs.jsonl", jsonl(records))).toMatchObject({ rows, dropped });
  });
});

describe("named ratings", () => {
  it("LangSmith: messages of LangChain, averages of several raters", async () => {
    const run = (id: string, avg: number | null, more = {}) => ({
      ...{ id, run_type: "llm", error: null, start_time: "2025-11-24T10:00:00" },
      inputs: {
        messages: [
          [{ lc: 1, type: "constructor", id: ["langchain", "schema", "HumanMessage"], kwargs: { content: "Hi" } }],
        ],
      },
      outputs: {
        generations: [
          [{ text: "Yo", message: { lc: 1, type: "constructor", id: ["AIMessage"], kwargs: { content: "Yo" } } }],
        ],
      },
      feedback_stats: avg === null ? {} : { thumb: { n: 2, avg } },
      ...more,
    });
    const runs = [run("a", 1), run("b", 0), run("c", 0.5), run("d", 0.75), run("e", 1, { error: "x" }), run("f", null)];
    expect(await read("runs.json", runs, { label: "thumb" })).toMatchObject({
      rows: [
        ["user: Hi", "Yo", true],
        ["user: Hi", "Yo", false],
        ["user: Hi", "Yo", true],
      ],
      dropped: ["c disagree", "e unfinished"],
      unrated: 1,
    });
  });

  it("Label Studio: values of the user's own, a scale, cancelled annotations and predictions", async () => {
    const task = (id: number, value: object, more = {}) => ({
      id,
      data: { q: "Hi", a: `answer ${id}` },
      annotations: [{ was_cancelled: false, result: [{ from_name: "quality", to_name: "a", value }], ...more }],
      predictions: [{ result: [{ from_name: "quality", value: { choices: ["fine"] } }] }],
    });
    const choices = [
      task(1, { choices: ["fine"] }),
      task(2, { choices: ["poor"] }),
      task(3, { choices: ["fine"] }, { was_cancelled: true }),
      task(4, { choices: ["odd"] }),
    ];
    const label = { column: "quality", up: "fine", down: ["poor", "wrong"] };
    expect(await read("tasks.json", choices, { prompt: "q", completion: "a", label })).toMatchObject({
      rows: [
        ["user: Hi", "answer 1", true],
        ["user: Hi", "answer 2", false],
      ],
      dropped: ["3 no-rating", "4 no-rating"],
    });
    const stars = [task(1, { rating: 5 }), task(2, { rating: 4 }), task(3, { rating: 3 })];
    expect(await read("tasks.json", stars, { prompt: "q", completion: "a", label: "quality" }, 4)).toMatchObject({
      rows: [
        ["user: Hi", "answer 1", true],
        ["user: Hi", "answer 2", true],
        ["user: Hi", "answer 3", false],
      ],
    });
  });

  it("Argilla flattened: submitted responses alone", async () => {
    const records = [
      {
        id: "1",
        chat: [user("Hi")],
        reply: "Yo",
        "thumb.responses": ["up", "down"],
        "thumb.responses.status": ["submitted", "draft"],
        _server_id: "s",
      },
      {
        id: "2",
        chat: [user("Hi")],
        reply: "Ho",
        "thumb.responses": ["up"],
        "thumb.responses.status": ["discarded"],
        _server_id: "t",
      },
    ];
    expect(await read("records.json", records, { prompt: "chat", completion: "reply", label: "thumb" })).toMatchObject({
      rows: [["user: Hi", "Yo", true]],
      dropped: ["2 no-rating"],
    });
  });

  it("Langfuse as csv, with answers cut by the limit of tokens", async () => {
    const cell = (value: unknown) =>
      `"${(typeof value === "string" ? value : JSON.stringify(value)).replaceAll('"', '""')}"`;
    const rows = [
      ["id", "timestamp", "environment", "input", "output", "thumb"],
      ["1", "2025-11-24T10:00:00Z", "default", [user("Hi,\nyou")], assistant("Yo"), [1]],
      [
        "2",
        "2025-11-24T10:00:00Z",
        "default",
        "42",
        { choices: [{ finish_reason: "length", message: assistant("Cu") }] },
        [0],
      ],
      ["3", "2025-11-24T10:00:00Z", "default", "Hi", "Ho", ""],
    ];
    const text = rows.map((row) => row.map(cell).join(",")).join("\n");
    expect(await read("traces.csv", text, { label: "thumb" })).toMatchObject({
      rows: [["user: Hi,\nyou", "Yo", true]],
      dropped: ["2 truncated"],
      unrated: 1,
    });
  });

  it("a rating without a name is asked for, with the names that there are", async () => {
    const path = "test/fixtures/exports/langfuse.json";
    const unnamed = await kto("data", "--dataset_name", path);
    expect([unnamed.code, unnamed.stderr]).toEqual([
      2,
      expect.stringMatching(/give label in column_mapping, .* the file has "helpfulness", "user-feedback"\./),
    ]);
    const wrong = await kto("data", "--dataset_name", path, "--column_mapping", '{"label": "thumbs"}');
    expect([wrong.code, wrong.stderr]).toEqual([
      2,
      expect.stringMatching(/reads the rating from "thumbs", which is not in the file; .*"user-feedback"/),
    ]);
  });
});

describe("single answers", () => {
  it("Gradio 5: pairs and plain texts", async () => {
    const cell = (value: unknown) => `"${JSON.stringify(value).replaceAll('"', '""')}"`;
    const pairs = [
      [null, "Welcome."],
      ["Hi", "Yo"],
    ];
    const texts = [user("Hi"), assistant("Yo"), assistant("How are you?")];
    const text = [
      "conversation,index,value,flag,timestamp",
      `${cell(pairs)},"[1, 1]",Like,2025-01-30 10:00:00`,
      `${cell(texts)},1,Dislike,2025-01-30 10:00:00`,
    ].join("\n");
    expect((await read("log.csv", text)).rows).toEqual([
      ["assistant: Welcome. | user: Hi", "Yo", true],
      ["user: Hi", "Yo\n\nHow are you?", false],
    ]);
  });

  it("Dify as csv, and reasoning under its heading", async () => {
    const answer = "<details open> <summary> Thinking... </summary>\nhm\n</details>\nYes. <details>more</details>";
    const text = `feedback_id,conversation_id,message_id,user_query,ai_response,feedback_rating_raw,feedback_date,message_date,from_account_name\nf1,c,m,Really?,"${answer.replaceAll('"', '""')}",like,2025-11-25 09:00:00,2025-11-24 08:00:00,Ada\n`;
    expect((await read("feedback.csv", text)).rows).toEqual([["user: Really?", "Yes. <details>more</details>", true]]);
  });
});
