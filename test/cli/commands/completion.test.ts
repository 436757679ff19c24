/**
 * The completion of the command line, asked of a real bash. The scripts for zsh 5.9 and fish 3.6 were tried in those
 * shells by hand; here they are read by them where they are installed, and hold every name.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { commandsToComplete } from "../../../src/cli/descriptions/all.ts";
import { SHELLS } from "../../../src/cli/descriptions/completion.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

const folder = temporaryFolder();
const scriptOf = (shell: string) => join(folder, shell);

beforeAll(async () => {
  for (const shell of SHELLS) {
    const { code, stdout } = await kto("completion", shell);
    expect(code).toBe(0);
    writeFileSync(scriptOf(shell), stdout);
  }
});

/** What bash offers at the end of a line, whose words it parts at blanks and at "=". */
function offered(line: string): string[] {
  const words = line.split(/(=)| /).filter((word) => word !== undefined && word !== "");
  if (/[ =]$/.test(line)) words.push("");
  const quoted = words.map((word) => `'${word}'`).join(" ");
  const program = `source "$0"; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _kto; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync("bash", ["--norc", "-c", program, scriptOf("bash")], { encoding: "utf8" });
  expect(stderr).toBe("");
  return stdout.split("\n").filter((word) => word !== "");
}

describe("in bash", () => {
  test.each([
    ["kto tr", ["train"]],
    ["kto help d", ["data", "dashboard", "doctor"]],
    ["kto completion ", ["bash", "zsh", "fish"]],
    ["kto-webgpu train --learning_r", ["--learning_rate"]],
    ["kto train --learning-r", ["--learning_rate"]],
    ["kto train --no_sh", ["--no_shuffle_dataset"]],
    ["kto train --loss_type ", ["kto", "apo_zero_unpaired"]],
    ["kto train --loss-type k", ["kto"]],
    ["kto train --loss_type=a", ["apo_zero_unpaired"]],
    ["kto train --beta 0.1 loss_type=", ["kto", "apo_zero_unpaired"]],
    ["kto train --fp16 ", ["true", "false"]],
    ["kto train --fp16 --bf", ["--bf16"]],
    // Of files bash itself offers the names.
    ["kto train --config ", []],
    ["kto train --output_dir ", []],
    ["kto doctor --loss", []],
  ])("%s", (line, words) => {
    expect(offered(line)).toEqual(words);
  });

  test("every command has all of its options", () => {
    for (const { name, options } of commandsToComplete()) {
      expect(offered(`kto ${name} --`).toSorted()).toEqual(options.map((option) => `--${option.name}`).toSorted());
    }
  });
});

test.each([
  ["zsh", (name: string) => `--${name}`],
  ["fish", (name: string) => `-l ${name}`],
] as const)(
  "the script for %s has every command and option, and is read by it where it is installed",
  async (shell, written) => {
    const { stdout } = await kto("completion", shell);
    for (const { name, options } of commandsToComplete()) {
      expect(stdout).toContain(name);
      for (const option of options) expect(stdout).toContain(written(option.name));
    }
    const { error, status, stderr } = spawnSync(shell, ["-n", scriptOf(shell)], { encoding: "utf8" });
    if (error === undefined) expect([status, stderr]).toEqual([0, ""]);
  },
);

test("a shell that is not known, and a word too many", async () => {
  expect(await kto("completion", "tcsh")).toMatchObject({
    code: 2,
    stderr: 'error: option "shell" is "tcsh"; it must be "bash", "zsh" or "fish".\n',
  });
  expect(await kto("completion", "bash", "zsh")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining(`unexpected "zsh"`),
  });
});
