/** What ranks of a command compare before they load a model, between ranks of this process. */
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkFolder, checkOptions, type NamedRanks } from "../../../src/cli/session/ranks.ts";
import { RankError } from "../../../src/errors.ts";
import { freshPath, temporaryFolder } from "../../helpers/folders.ts";
import { localRanks } from "../../helpers/local-ranks.ts";

const folder = temporaryFolder();

/** Lets two ranks compare what each has; what each then throws. */
async function compared<T>(own: readonly T[], compare: (ranks: NamedRanks, own: T) => Promise<void>) {
  const ranks = localRanks(own.length);
  const members = ranks.map(({ rank }) => ({ rank, host: "here", pid: rank, machine: "one", version: "1" }));
  const ends = await Promise.allSettled(
    own.map(async (one, rank) => {
      const link = ranks[rank];
      if (link === undefined) throw new Error(`there is no rank ${rank}`);
      await compare({ ...link, members, nameOf: (other) => `rank ${other}` }, one);
    }),
  );
  return ends.map((end) => (end.status === "rejected" ? end.reason : undefined));
}

describe("options", () => {
  test.each<readonly [string, readonly Record<string, unknown>[], string | undefined]>([
    ["another value", [{ beta: 0.1 }, { beta: 0.3 }], "beta 0.3, and rank 0 has 0.1"],
    [
      "an adapter on rank 1 alone",
      [{}, { adapter_name_or_path: "a" }],
      "adapter_name_or_path one, and rank 0 has none",
    ],
    [
      "a reference on rank 0 alone",
      [{ ref_model_name_or_path: "r" }, {}],
      "ref_model_name_or_path none, and rank 0 has one",
    ],
    [
      "a checkpoint to go on from on rank 1 alone",
      [{ resume_from_checkpoint: false }, { resume_from_checkpoint: true }],
      "resume_from_checkpoint one, and rank 0 has none",
    ],
    ["copies of one file under two names", [{ dataset_name: "a" }, { dataset_name: "b" }], undefined],
    ["what concerns one machine", [{ adapter: "0" }, { adapter: "1" }], undefined],
  ])("with %s", async (_, own, difference) => {
    const error = difference && new RankError(`rank 1 has ${difference}: start all ranks with the same options.`);
    expect(await compared(own, checkOptions)).toEqual([error, error]);
  });
});

describe("the files of a model", () => {
  const make = (files: Readonly<Record<string, string>>) => {
    const path = freshPath(folder, "model");
    mkdirSync(path);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
    return path;
  };
  const files = { "config.json": "{}", "model.safetensors": "weights" };

  test("may be copies", async () => {
    const first = make(files);
    const copy = freshPath(folder, "copy");
    cpSync(first, copy, { recursive: true });
    expect(await compared([first, copy, first], (ranks, path) => checkFolder(ranks, "model", path))).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  test("are refused where rank 1 alone has a folder", async () => {
    const own = [undefined, make({ "adapter_config.json": "{}" })];
    const ends = await compared(own, (ranks, path) => checkFolder(ranks, "adapter", path));
    const sentence =
      "rank 1 has adapter_config.json in its adapter, and rank 0 has none: copy rank 0's files to its machine.";
    expect(ends).toEqual([new RankError(sentence), new RankError(sentence)]);
  });

  test.each([
    ["another file", { ...files, "config.json": "[]" }, "has another config.json in its model than rank 0"],
    ["one file less", { "config.json": "{}" }, "has no model.safetensors in its model"],
    [
      "one file more",
      { ...files, "chat_template.jinja": "" },
      "has chat_template.jinja in its model, and rank 0 has none",
    ],
  ])("are refused where rank 1 has %s", async (_, others, difference) => {
    const error = new RankError(`rank 1 ${difference}: copy rank 0's files to its machine.`);
    const ends = await compared([make(files), make(others)], (ranks, path) => checkFolder(ranks, "model", path));
    expect(ends).toEqual([error, error]);
  });
});
