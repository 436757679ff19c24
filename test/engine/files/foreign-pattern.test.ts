/** Patterns of users and files: a bad one is told, and never waited for. */
import { expect, test, vi } from "vitest";
import { fromPython, textsMatching } from "../../../src/engine/files/foreign-pattern.ts";
import { splitsOf } from "../../../src/engine/hub/datasets.ts";
import { readModelConfig } from "../../../src/engine/model/config/folder.ts";
import { selectModules } from "../../../src/engine/model/lora-modules.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { ConfigError, DatasetError } from "../../../src/errors.ts";
import { llama } from "../../helpers/folders.ts";

const { withinTime } = platform;

/** All time limits are this one while `work` runs. */
async function limitedTo<T>(milliseconds: number, work: () => T): Promise<Awaited<T>> {
  const spy = vi.spyOn(platform, "withinTime").mockImplementation((_, timed) => withinTime(milliseconds, timed));
  try {
    return await work();
  } finally {
    spy.mockRestore();
  }
}

test("the texts in which a pattern is found", () => {
  expect(textsMatching("b.?$", ["abc", "ba", "cba"], "p")).toEqual(["abc", "ba", "cba"]);
  expect(textsMatching("^b", ["abc", "ba"], "p")).toEqual(["ba"]);
});

test.each([
  ["\\A.*q_proj\\Z", "^.*q_proj$"],
  ["(?P<layer>\\d+)\\.q", "(?<layer>\\d+)\\.q"],
  ["\\\\Z[A-Z]", "\\\\Z[A-Z]"],
])("Python's pattern %s in JavaScript", (python, javascript) => {
  expect(fromPython(python)).toBe(javascript);
});

test("a pattern that is none, and one that takes for ever", () => {
  expect(() => textsMatching("(", ["a"], 'p "("', { advice: "; write q" })).toThrow(
    new ConfigError('p "(" is no regular expression; write q.'),
  );
  expect(() => textsMatching("(a+)+$", [`${"a".repeat(28)}b`], 'p "(a+)+$"', { timeLimitMs: 50 })).toThrow(
    new ConfigError(
      'p "(a+)+$" takes longer than 0.05 s to compare with 1 name; write it without a repetition inside a repetition.',
    ),
  );
});

test("the patterns of an adapter", async () => {
  const config = await readModelConfig(llama);
  const options = { rank: 1, alpha: 1, dropout: 0, rslora: false };
  const endless = "((\\w|\\.)+)+!";
  for (const [own, what] of [
    [{ targetModules: endless }, "lora_target_modules"],
    [{ targetModules: "all-linear", excludeModules: endless }, '"exclude_modules"'],
    [{ targetModules: "all-linear", rankPattern: { [endless]: 2 } }, '"rank_pattern"'],
    [{ targetModules: ["q_proj"], layersToTransform: [0], layersPattern: endless }, '"layers_pattern"'],
  ] as const) {
    await expect(limitedTo(50, () => selectModules(config, { ...options, ...own }))).rejects.toThrow(
      `${what} ${JSON.stringify(endless)} takes longer than`,
    );
  }
});

test("the files that a README's pattern means", async () => {
  const readme = (pattern: string) => `---\nconfigs:\n- config_name: default\n  data_files: "${pattern}"\n---\n`;
  const files = [`${"a".repeat(200)}.csv`];
  const endless = limitedTo(50, () => splitsOf(files, readme("*a".repeat(9)), undefined, "here"));
  await expect(endless).rejects.toThrow(/^The pattern "\*a.*" of README\.md takes longer than/);
  await expect(endless).rejects.toMatchObject({ exitCode: 3 });

  expect(() => splitsOf(files, readme("[z-a].csv"), undefined, "here")).toThrow(
    new DatasetError('The pattern "[z-a].csv" of README.md is no regular expression.'),
  );
});
