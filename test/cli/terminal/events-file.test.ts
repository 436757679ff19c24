/** events.jsonl: what a run said, from its first word, cut back with the run. */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EventsFile } from "../../../src/cli/terminal/events-file.ts";
import type { EventLine } from "../../../src/kto/run/event-line.ts";
import { freshPath, temporaryFolder } from "../../helpers/folders.ts";

const root = temporaryFolder();

function begin(folder = freshPath(root, "run")) {
  mkdirSync(folder, { recursive: true });
  const warnings: string[] = [];
  const events = new EventsFile(
    folder,
    (text) => warnings.push(text),
    () => new Date(0),
  );
  const read = () =>
    readFileSync(join(folder, "events.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as EventLine);
  return { folder, events, warnings, read };
}

test("what was said before the file began is in it, then all else with its update, in order", async () => {
  const { events, read, warnings } = begin();
  events.take("info", "adapter");
  const starting = events.start(0);
  events.take("warning", "while it begins");
  await starting;
  events.step = 3;
  events.take("info", "checkpoint");
  events.take("error", "x".repeat(5000));
  await events.end();
  expect(read()).toEqual([
    { step: 0, time: "1970-01-01T00:00:00.000Z", level: "info", text: "adapter" },
    expect.objectContaining({ step: 0, level: "warning", text: "while it begins" }),
    expect.objectContaining({ step: 3, level: "info", text: "checkpoint" }),
    expect.objectContaining({ step: 3, level: "error", text: "x".repeat(2000) }),
  ]);
  expect(warnings).toEqual([]);
});

test("a run that goes on from a checkpoint keeps what was said up to there; a new one begins anew", async () => {
  const first = begin();
  await first.events.start(0);
  for (const step of [1, 2, 3]) {
    first.events.step = step;
    first.events.take("info", `update ${step}`);
  }
  await first.events.end();
  const resumed = begin(first.folder);
  resumed.events.take("info", "resumed");
  await resumed.events.start(2);
  expect(resumed.read().map(({ step, text }) => [step, text])).toEqual([
    [1, "update 1"],
    [2, "update 2"],
    [2, "resumed"],
  ]);
  const again = begin(first.folder);
  again.events.take("info", "new");
  await again.events.start(0);
  expect(again.read().map(({ text }) => text)).toEqual(["new"]);
});

test("a file that cannot be written is told once, and a run that never began writes nothing", async () => {
  const { folder, events, warnings } = begin();
  mkdirSync(join(folder, "events.jsonl"));
  await events.start(0);
  events.take("info", "lost");
  await events.end();
  expect(warnings).toEqual([
    expect.stringMatching(/events\.jsonl.* The training goes on, and writes no more of what it says\.$/),
  ]);
  const refused = begin();
  refused.events.take("info", "adapter");
  await refused.events.end();
  expect(() => refused.read()).toThrow("ENOENT");
});
