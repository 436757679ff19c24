import { expect, test } from "vitest";
import { streamsOf } from "../../../src/cli/terminal/rank-process.ts";

function written(rank: number, shown: boolean) {
  const texts = { stdout: "", stderr: "" };
  const sink = (name: "stdout" | "stderr") => ({
    isTTY: true,
    write(text: string) {
      texts[name] += text;
    },
  });
  const streams = streamsOf({ rank }, { stdout: sink("stdout"), stderr: sink("stderr") }, shown);
  streams.stdout.write("a result\n");
  streams.stderr.write("a line, ");
  streams.stderr.write("its end\nanother\n\n");
  return { ...texts, isTTY: streams.stdout.isTTY };
}

test("rank 0 writes as it is, and to no terminal that could be moved on", () => {
  expect(written(0, false)).toEqual({
    stdout: "a result\n",
    stderr: "a line, its end\nanother\n\n",
    isTTY: undefined,
  });
});

test("the others write nothing, or all of it with their number", () => {
  expect(written(3, false)).toMatchObject({ stdout: "", stderr: "" });
  expect(written(3, true)).toMatchObject({
    stdout: "",
    stderr: "[3] a result\n[3] a line, its end\n[3] another\n[3] \n",
  });
});
