/**
 * Exports whose records need each other: messages of a tree with a record each (LibreChat's database, OASST), and scores
 * beside the traces that they are about (Langfuse); pairs with one rating (Label Studio). Shapes as the programs' sources
 * write them; rows and reasons worked out by hand from the rules.
 */
import type { SchemaElement } from "hyparquet";
import { type ColumnSource, parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import type { ColumnMapping } from "../../../../src/kto/data/columns.ts";
import { shortRows } from "../../../helpers/exports.ts";
import { jsonl, temporaryFolder } from "../../../helpers/folders.ts";

const folder = temporaryFolder();
const read = (name: string | readonly string[], content: unknown, mapping?: ColumnMapping, threshold?: number) =>
  shortRows(folder, name, content, mapping, threshold);

describe("LibreChat's database", () => {
  const none = "00000000-0000-0000-0000-000000000000";
  const oid = (n: number) => ({ $oid: `65f0c0ffee00000000000${String(n).padStart(3, "0")}` });
  let count = 0;
  const message = (conversation: string, id: string, parent: string, text: string, more: object = {}) => ({
    ...{ _id: oid(++count), messageId: id, conversationId: conversation, parentMessageId: parent, user: "ada" },
    ...{ isCreatedByUser: id.startsWith("q"), text, sender: "x", error: false, unfinished: false },
    ...{ createdAt: { $date: "2025-11-24T10:00:00.000Z" }, updatedAt: { $date: "2025-11-24T10:00:05.000Z" } },
    ...{ __v: 0, ...more },
  });
  const up = { feedback: { rating: "thumbsUp", tag: { key: "clear_well_written" } } };
  const down = { feedback: { rating: "thumbsDown" }, model: "llama3.2" };
  const messages = [
    // An answer that stands before its question, and conversations that are mixed.
    message("c1", "a2", "q2", "Four.", down),
    message("c1", "q1", none, "1+1?"),
    message("c2", "q9", none, "Sky?"),
    message("c1", "a1", "q1", "Two.", up),
    message("c2", "a9", "q9", "", { content: [{ type: "text", text: { value: "Blue." } }], ...up }),
    message("c1", "q2", "a1", "And 2+2?"),
    message("c2", "a8", "q9", "Green."),
    message("c3", "a7", "gone", "Lost.", up),
  ];
  const expected = {
    rows: [
      ["user: 1+1? | assistant: Two. | user: And 2+2?", "Four.", false],
      ["user: 1+1?", "Two.", true],
      ["user: Sky?", "Blue.", true],
    ],
    dropped: ["a7 broken-path"],
    unrated: 1,
    shape: "LibreChat messages",
  };

  it("mongoexport's lines and its array, dates in both of its forms", async () => {
    expect(await read("messages.json", jsonl(messages))).toEqual(expected);
    const canonical = messages.map((one) => ({
      ...one,
      __v: { $numberInt: "0" },
      createdAt: { $date: { $numberLong: "1763978400000" } },
      updatedAt: { $date: { $numberLong: "1763978405000" } },
    }));
    expect(await read("array.json", canonical)).toEqual(expected);
  });

  it("the collection of conversations beside it gives the instructions", async () => {
    const conversations = [
      { _id: oid(500), conversationId: "c2", title: "Sky", messages: [oid(1)], promptPrefix: "Be brief.", user: "ada" },
      { _id: oid(501), conversationId: "c1", title: "Sums", messages: [], promptPrefix: null, user: "ada" },
    ];
    const files = ["conversations.jsonl", "messages.jsonl"];
    const { rows } = await read(files, [jsonl(conversations), jsonl(messages)]);
    expect(rows.map(([prompt]) => prompt)).toEqual([
      ...expected.rows.slice(0, 2).map(([prompt]) => prompt),
      "system: Be brief. | user: Sky?",
    ]);
  });

  it("cycles of parents end", async () => {
    const circle = [message("c", "q1", "a1", "Hm?"), message("c", "a1", "q1", "Hm.", up)];
    await expect(read("circle.jsonl", jsonl(circle))).rejects.toThrow(/1 broken-path/);
  });
});

describe("Langfuse", () => {
  const trace = (id: string, input: unknown, output: unknown, more: object = {}) => ({
    ...{ id, timestamp: "2025-11-24T12:00:00.000Z", environment: "default", input, output, ...more },
  });
  let count = 0;
  const score = (traceId: string, value: number | null, more: object = {}) => ({
    ...{ id: `s${++count}`, traceId, observationId: null, sessionId: null, timestamp: "2025-11-24T12:01:00.000Z" },
    ...{ source: "API", name: "thumb", dataType: "NUMERIC", value, stringValue: null, comment: "mine", ...more },
  });
  const label = { label: "thumb" };

  it("the table of scores gives thumbs to traces and observations of another file", async () => {
    const traces = [
      trace("t1", "Hi", "Yo"),
      trace("t2", "Hi", "No"),
      trace("t3", "Hi", "Ho"),
      trace("t4", "Hi", "Hm"),
      trace("t5", "Hi", "Eh"),
    ];
    const observation = { ...trace("o1", [{ role: "user", content: "Sum?" }], "3"), startTime: "2025-11-24T12:00:00Z" };
    const scores = [
      score("t1", 1),
      score("t2", 0),
      // Two raters against one; the columns of the table of traces do not tell how many there were.
      score("t3", 1, { source: "ANNOTATION" }),
      score("t3", 0),
      score("t3", 1),
      // A machine's score, another name, a corrected answer: none is a thumb.
      score("t4", 1, { source: "EVAL" }),
      score("t4", 1, { name: "other" }),
      score("t4", 0, { dataType: "CORRECTION", stringValue: "Better" }),
      score("t5", 0, { dataType: "BOOLEAN", stringValue: "False" }),
      score("t1", 1, { observationId: "o1" }),
      score("gone", 1),
      score("gone", 1),
    ];
    const files = ["observations.json", "scores.json", "traces.json"];
    expect(await read(files, [[observation], scores, traces], label)).toEqual({
      rows: [
        ["user: Sum?", "3", true],
        ["user: Hi", "Yo", true],
        ["user: Hi", "No", false],
        ["user: Hi", "Ho", true],
        ["user: Hi", "Eh", false],
      ],
      dropped: ["s11 answer-missing"],
      unrated: 1,
      shape: "Langfuse traces",
    });
  });

  it("categories by their texts, as csv", async () => {
    const texts = [
      "id,traceId,observationId,name,source,dataType,value,stringValue",
      's1,t1,,mood,ANNOTATION,CATEGORICAL,0,"happy"',
      's2,t2,,mood,ANNOTATION,CATEGORICAL,0,"sad"',
      's3,t3,,mood,ANNOTATION,CATEGORICAL,0,"bored"',
    ].join("\n");
    const traces = [
      "id,timestamp,environment,input,output",
      ...[1, 2, 3].map((n) => `t${n},2025-11-24,default,Hi,Yo ${n}`),
    ];
    const mood = { label: { column: "mood", up: "happy", down: ["sad"] } };
    expect(await read(["scores.csv", "traces.csv"], [texts, traces.join("\n")], mood)).toMatchObject({
      rows: [
        ["user: Hi", "Yo 1", true],
        ["user: Hi", "Yo 2", false],
      ],
      dropped: ["t3 no-rating"],
    });
  });

  it("one trace with its observations and scores, as downloaded and as the API gives it", async () => {
    const observation = (id: string, parent: string | null, input: unknown, output: unknown) => ({
      ...{ id, traceId: "t", parentObservationId: parent, type: "GENERATION", startTime: "2025-11-24T12:00:00Z" },
      ...{ model: "m", input, output },
    });
    const observations = [
      observation("root", null, "Plan a trip.", "Go to Rome."),
      observation("inner", "root", [{ role: "user", content: "A city?" }], { role: "assistant", content: "Rome" }),
    ];
    const scores = [score("t", 1), score("t", 0, { observationId: "inner" }), score("t", 1, { observationId: "lost" })];
    const downloaded = { observations, scores };
    const rows = [
      ["user: Plan a trip.", "Go to Rome.", true],
      ["user: A city?", "Rome", false],
    ];
    expect(await read("trace.json", downloaded, label)).toMatchObject({ rows, dropped: ["lost answer-missing"] });
    // The API's trace has texts of its own.
    const full = { ...trace("t", "Plan.", "Rome."), observations, scores };
    expect((await read("trace.json", full, label)).rows).toEqual([["user: Plan.", "Rome.", true], rows[1]]);
    const page = { data: [trace("t1", "Hi", "Yo"), trace("t2", "Hi", "No")], meta: { page: 1, totalPages: 1 } };
    const scoresPage = { data: [score("t2", 0)], meta: { page: 1, totalPages: 1 } };
    expect(await read(["traces.json", "scores.json"], [page, scoresPage], label)).toMatchObject({
      rows: [["user: Hi", "No", false]],
      unrated: 1,
    });
  });

  it("names the scores that there are", async () => {
    const files = ["scores.json", "traces.json"];
    const content = [[score("t", 1)], [trace("t", "Hi", "Yo")]];
    await expect(read(files, content)).rejects.toThrow(/give label in column_mapping, .* the file has "thumb"\./);
    await expect(read(files, content, { label: "up" })).rejects.toThrow(/"up", which is not in the file; .* "thumb"/);
  });
});

describe("Label Studio's pairs", () => {
  const task = (id: number, ...selected: readonly string[]) => ({
    id,
    data: { q: "Name one.", one: `left ${id}`, two: `right ${id}` },
    annotations: selected.map((side) => ({
      was_cancelled: false,
      result: [{ from_name: "pw", to_name: "txt-1,txt-2", type: "pairwise", value: { selected: side } }],
    })),
  });
  const tasks = [
    task(1, "left"),
    task(2, "right"),
    task(3, "left", "right"),
    task(4, "left", "left", "right"),
    task(5),
  ];
  const mapping = { prompt: "q", completion: ["one", "two"], label: "pw" } as const;

  it("the picked answer is up, the other down; several people decide by majority", async () => {
    expect(await read("pairs.json", tasks, mapping)).toMatchObject({
      rows: [
        ["user: Name one.", "left 1", true],
        ["user: Name one.", "right 1", false],
        ["user: Name one.", "left 2", false],
        ["user: Name one.", "right 2", true],
        ["user: Name one.", "left 4", true],
        ["user: Name one.", "right 4", false],
      ],
      dropped: ["3/a disagree", "3/b disagree", "5/a no-rating", "5/b no-rating"],
    });
  });

  it("asks for both answers, and takes two for nothing else", async () => {
    await expect(read("pairs.json", tasks, { prompt: "q", completion: "one", label: "pw" })).rejects.toThrow(
      /control "pw" of Label Studio picks one of two answers: .*"completion": \["answer1", "answer2"\]/,
    );
    const row = [{ q: "Hi", one: "Yo", two: "No", pw: true }];
    await expect(read("rows.json", row, mapping)).rejects.toThrow(
      /gives "completion" two names, .*rows\.json is no such export/,
    );
  });
});

describe("OASST", () => {
  const labels = (quality: number) => ({ quality: { value: quality, count: 3 }, spam: { value: 0, count: 3 } });
  interface Node {
    readonly message_id: string;
    readonly text: string;
    readonly replies?: readonly Node[];
    readonly [more: string]: unknown;
  }
  const node = (role: string, id: string, text: string, more: object, replies: readonly Node[] = []): Node => ({
    ...{ message_id: id, parent_id: null, user_id: "u", text, role, lang: "en", review_result: true, deleted: false },
    ...{ rank: null, model_name: null, labels: labels(0.5), ...more, replies },
  });
  const [prompter, assistant] = ["prompter", "assistant"];
  const tree = {
    message_tree_id: "p",
    tree_state: "ready_for_export",
    prompt: node(prompter, "p", "Why?", {}, [
      node(assistant, "b", "Because.", { rank: 1, labels: labels(0.75) }, [
        node(prompter, "p2", "Really?", { rank: 0 }, [node(assistant, "e", "Yes.", { labels: labels(1) })]),
      ]),
      node(assistant, "a", "So it is.", { rank: 0, labels: labels(0.9) }),
      node(assistant, "c", "No.", { rank: 2, labels: labels(0.1), model_name: "m" }),
      node(assistant, "d", "BUY NOW", { rank: 3, labels: labels(0), review_result: false }),
    ]),
  };
  /** The tree's messages as rows, with what tables have otherwise: parents named, labels as lists. */
  const flat = ({ prompt }: typeof tree) => {
    const rows: Record<string, unknown>[] = [];
    const walk = ({ replies = [], ...message }: Node, parent: string | null) => {
      const own = message.labels as ReturnType<typeof labels>;
      const names = Object.keys(own) as (keyof typeof own)[];
      const lists = { name: names, value: names.map((name) => own[name].value), count: names.map(() => 3) };
      rows.push({ ...message, parent_id: parent, message_tree_id: "p", tree_state: "ready_for_export", labels: lists });
      for (const reply of replies) walk(reply, message.message_id);
    };
    walk(prompt, null);
    return rows;
  };
  /** The columns as the datasets library writes them. */
  const parquetSchema = (names: readonly string[]): SchemaElement[] => [
    { name: "root", num_children: names.length },
    ...names.flatMap((name): SchemaElement[] => {
      const list = (field: string, type: SchemaElement): SchemaElement[] => [
        { name: field, num_children: 1, repetition_type: "OPTIONAL", converted_type: "LIST" },
        { name: "list", num_children: 1, repetition_type: "REPEATED" },
        { ...type, name: "element", repetition_type: "OPTIONAL" },
      ];
      const text = { name, type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" } as const;
      const whole = { name, type: "INT32", repetition_type: "OPTIONAL" } as const;
      if (name === "labels") {
        return [
          { name, num_children: 3, repetition_type: "OPTIONAL" },
          ...list("name", text),
          ...list("value", { name, type: "DOUBLE" }),
          ...list("count", whole),
        ];
      }
      if (name === "rank") return [whole];
      if (name === "deleted" || name === "review_result") return [{ ...whole, type: "BOOLEAN" }];
      return [text];
    }),
  ];
  const ranked = {
    rows: [["user: Why?", "So it is.", true]],
    dropped: ["b no-rating", "c no-rating", "d deleted"],
    unrated: 1,
  };
  const byQuality = {
    rows: [
      ["user: Why?", "Because.", true],
      ["user: Why? | assistant: Because. | user: Really?", "Yes.", true],
      ["user: Why?", "So it is.", true],
      ["user: Why?", "No.", false],
    ],
    dropped: ["d deleted"],
    unrated: 0,
  };

  it("trees: the best rank is up and the worst down, or a label from a threshold on", async () => {
    expect(await read("trees.jsonl", jsonl([tree]), { label: "rank" })).toEqual({ ...ranked, shape: "OASST trees" });
    expect(await read("trees.jsonl", jsonl([tree]), { label: "quality" }, 0.6)).toMatchObject(byQuality);
    const chosen = { label: { column: "rank", up: [0], down: [1, 2] } };
    expect((await read("trees.jsonl", jsonl([tree]), chosen)).rows).toEqual([
      ["user: Why?", "Because.", false],
      ["user: Why?", "So it is.", true],
      ["user: Why?", "No.", false],
    ]);
  });

  it("tables of messages, in any order", async () => {
    const rows = flat(tree);
    expect(await read("messages.jsonl", jsonl(rows), { label: "rank" })).toEqual({
      ...ranked,
      shape: "OASST messages",
    });
    expect(await read("messages.jsonl", jsonl(rows), { label: "quality" }, 0.6)).toMatchObject(byQuality);
    const turned = await read("messages.jsonl", jsonl(rows.toReversed()), { label: "quality" }, 0.6);
    expect(turned.rows.toReversed()).toEqual(byQuality.rows);
    // The data set on the hub is parquet: labels are a struct of lists there.
    const columns: ColumnSource[] = Object.keys(rows[0] ?? {}).map((name) => ({
      name,
      data: rows.map((row) => row[name] ?? null),
    }));
    const schema = parquetSchema(Object.keys(rows[0] ?? {}));
    const parquet = new Uint8Array(parquetWriteBuffer({ columnData: columns, schema }));
    expect(await read("train.parquet", parquet, { label: "rank" })).toMatchObject(ranked);
    expect(await read("train.parquet", parquet, { label: "quality" }, 0.6)).toMatchObject(byQuality);
  });

  it("asks which rank or label is the thumb", async () => {
    await expect(read("trees.jsonl", jsonl([tree]))).rejects.toThrow(
      /give label in column_mapping, .* the file has "quality", "spam", "rank"/,
    );
  });
});
