/** Commands whose streams take no more, each in a process of its own under a shell. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { fixtures, freshPath, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();

/** `kto` in the line stands for a command that writes many lines to stdout, and one to stderr after them. */
function shell(line: string) {
  const output = `${freshPath(folder, "rows")}.jsonl`;
  const command = `node bin/kto.js data --dataset_name ${fixtures}/feedback/kto_en_demo.csv --output ${output}`;
  const { status, stdout, stderr } = spawnSync("bash", ["-c", `set -o pipefail; kto() { ${command} "$@"; }; ${line}`], {
    encoding: "utf8",
  });
  const rows = () => readFileSync(output, "utf8").trim().split("\n").length;
  return { status, stdout, stderr, rows };
}

describe("a command whose reader has gone", () => {
  test("stderr: what cannot be said is dropped", () => {
    const { status, rows } = shell("kto 2>&1 >/dev/null | true");
    expect([status, rows()]).toEqual([0, 24]);
  });

  test("stdout: it ends quietly", () => {
    const { status, stderr } = shell("kto | true");
    expect([status, stderr.replace(/^.* rows were written to .*\n/, "")]).toEqual([0, ""]);
  });
});

describe("a command whose disk is full", () => {
  test("stderr: what cannot be said is dropped", () => {
    const { status, stdout } = shell("kto 2>/dev/full");
    expect([status, stdout.split("\n")[0]]).toEqual([0, expect.stringMatching(/^layout /)]);
  });

  test("stdout: one sentence", () => {
    const { status, stderr } = shell("kto >/dev/full");
    expect([status, stderr.split("\n").at(-2)]).toEqual([
      7,
      "error: Cannot write to stdout: no space is left on the disk.",
    ]);
  });
});
