/**
 * Event files: each record byte for byte that of TensorBoard's own writer (events.json, made by make-events.py), and
 * what stands in the files of a run, a run that goes on, and one whose disk fails for a while.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { platform } from "../../../../src/engine/platform/index.ts";
import { FileError } from "../../../../src/errors.ts";
import { crc32c, type EventContent, eventRecord } from "../../../../src/kto/report/trackers/event-file.ts";
import { defaultLoggingFolder, TensorBoard, tensorBoardName } from "../../../../src/kto/report/trackers/tensorboard.ts";
import { freshPath, temporaryFolder } from "../../../helpers/folders.ts";

const folder = temporaryFolder();
afterEach(() => {
  vi.restoreAllMocks();
});

interface MadeRecord {
  readonly seconds: number;
  readonly step: number;
  readonly content: EventContent | { readonly scalars: Readonly<Record<string, number | string>> };
  readonly record: string;
}
const made = JSON.parse(readFileSync("test/kto/report/trackers/events.json", "utf8")) as MadeRecord[];

/** The records of the only file, or of the files in their order, each one's data as latin1. */
function recordsIn(path: string): string[][] {
  return readdirSync(path)
    .sort()
    .map((name) => {
      const file = readFileSync(join(path, name));
      const records: string[] = [];
      for (let at = 0; at < file.length; ) {
        const length = Number(file.readBigUInt64LE(at));
        records.push(file.toString("latin1", at + 12, at + 12 + length));
        at += 16 + length;
      }
      return records;
    });
}

describe("records", () => {
  test("CRC-32C: the examples of RFC 3720, B.4", () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => 31 - i))).toBe(0x113fdb5c);
  });

  test.each(made.map((one) => [JSON.stringify(one.content).slice(0, 60), one] as const))(
    "%s: TensorBoard's own bytes",
    (_, { seconds, step, content, record }) => {
      const known =
        "scalars" in content
          ? { scalars: Object.fromEntries(Object.entries(content.scalars).map(([tag, value]) => [tag, Number(value)])) }
          : content;
      expect(Buffer.from(eventRecord(seconds, step, known)).toString("hex")).toBe(record);
    },
  );
});

describe("TensorBoard", () => {
  test("names are transformers', and so is the default folder", () => {
    expect(["loss", "eval_loss", "eval_rewards/chosen", "rewards/chosen", "epoch"].map(tensorBoardName)).toEqual([
      ...["train/loss", "eval/loss", "eval/rewards/chosen", "train/rewards/chosen", "train/epoch"],
    ]);
    vi.spyOn(platform, "hostName").mockReturnValue("box");
    expect(defaultLoggingFolder("out", new Date(2026, 10, 3, 4, 5, 6))).toBe(join("out", "runs", "Nov03_04-05-06_box"));
  });

  test("a file begins with its version and the configuration; numbers that are none are left out", async () => {
    const path = freshPath(folder, "logs");
    const board = new TensorBoard({ folder: path, config: { beta: 0.1 }, resumedAfter: undefined });
    await board.start();
    await board.write([
      { time: 1000, step: 2, values: { loss: 0.5, kl: null } },
      { time: 1000, step: 2, values: { kl: null } },
    ]);
    const [records] = recordsIn(path);
    expect(records).toHaveLength(3);
    expect(records?.[0]).toContain("brain.Event:2");
    expect(records?.[1]).toContain('    {\n      "beta": 0.1\n    }');
    expect(records?.[2]).toContain("train/loss");
    expect(records?.[2]).not.toContain("train/kl");
  });

  test("a run that goes on begins another file, at whose first step TensorBoard drops what came later", async () => {
    const path = freshPath(folder, "logs");
    for (const resumedAfter of [undefined, 4]) {
      await new TensorBoard({ folder: path, config: {}, resumedAfter }).start();
    }
    const [, second] = recordsIn(path);
    const start = Buffer.from(eventRecord(0, 5, { sessionStarts: true })).subarray(12 + 9, -4);
    expect(Buffer.from(second?.[1] ?? "", "latin1").subarray(9)).toEqual(start);
  });

  test("a write that failed may have left half a record, so the lines go into a new file", async () => {
    const path = freshPath(folder, "logs");
    const board = new TensorBoard({ folder: path, config: {}, resumedAfter: undefined });
    await board.start();
    vi.spyOn(platform, "append").mockRejectedValueOnce(new FileError("Cannot write: no space is left."));
    const lines = [{ time: 1000, step: 2, values: { loss: 0.5 } }];
    await expect(board.write(lines)).rejects.toThrow("no space is left");
    await board.write(lines);
    const [first, second] = recordsIn(path);
    expect(first).toHaveLength(2);
    expect(second?.[0]).toContain("brain.Event:2");
    expect(second?.[1]).toContain("train/loss");
  });
});
