/** What a run's folder says in words, as it is written. */
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RunNotes } from "../../src/dashboard/run-notes.ts";
import { freshPath, temporaryFolder } from "../helpers/folders.ts";

const root = temporaryFolder();

function begin() {
  const folder = freshPath(root, "run");
  mkdirSync(folder, { recursive: true });
  return {
    folder,
    notes: new RunNotes(folder),
    events: join(folder, "events.jsonl"),
    rows: join(folder, "rows.jsonl"),
  };
}

const event = (step: number, level: string, text: string) =>
  `${JSON.stringify({ step, time: "2026-11-30T22:00:00.000Z", level, text })}\n`;

test("events come newest first; damaged lines and half a line are no events; a warning is never lost behind others", async () => {
  const { notes, events } = begin();
  expect(await notes.read()).toBe(false);
  writeFileSync(events, `${event(0, "warning", "first")}{"step":1}\nnot json\n{"step":1,"time":"x","le`);
  expect(await notes.read()).toBe(true);
  expect([notes.count, notes.warningCount]).toEqual([1, 1]);
  appendFileSync(events, `vel":"info","text":"second"}\n`);
  await notes.read();
  expect(notes.events.events.map(({ text }) => text)).toEqual(["second", "first"]);
  appendFileSync(events, Array.from({ length: 1000 }, (_, i) => event(i, "info", `line ${i}`)).join(""));
  await notes.read();
  const { count, events: told } = notes.events;
  expect(count).toBe(1002);
  expect(told).toHaveLength(201);
  expect([told[0]?.text, told.at(-1)?.text]).toEqual(["line 999", "first"]);
  writeFileSync(events, event(0, "info", "again"));
  await notes.read();
  expect([notes.count, notes.warningCount]).toEqual([1, 0]);
});

test("the text of a row is found by its number, and not where its line is damaged", async () => {
  const { notes, rows } = begin();
  const row = (index: number, completion: string) =>
    JSON.stringify({ step: 1, index, label: true, prompt: "<b>", completion });
  writeFileSync(rows, `${row(4, " yes")}\n{"step":1,"index":5,"label":tr}\n${row(6, " half")}`);
  await notes.read();
  expect(await notes.rowText(4)).toEqual({ prompt: "<b>", completion: " yes" });
  expect([await notes.rowText(5), await notes.rowText(6), await notes.rowText(7)]).toEqual(Array(3).fill(undefined));
});

test("what the run was started with: undefined where there is no run.json, or none of a run's", async () => {
  const { folder, notes } = begin();
  expect(await notes.facts()).toBeUndefined();
  writeFileSync(join(folder, "run.json"), "[1]");
  expect(await notes.facts()).toBeUndefined();
  const facts = {
    ...{ started: "2026-11-30T22:00:00.000Z", method: "kto", program: "kto-webgpu 0.1.0", adapter: "a", model: "m" },
    ...{ parameters: 2, trained: 1, data: "2 rows", updates: 3, updates_per_epoch: 1, options: { beta: 0.1 } },
  };
  writeFileSync(join(folder, "run.json"), JSON.stringify(facts));
  expect(await notes.facts()).toEqual(facts);
});
