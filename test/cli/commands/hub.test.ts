/** Commands that take their model and feedback from a hub, and what they show of it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { PossibleRuns } from "../../../src/cli/session/possible-runs.ts";
import { DownloadLine, renderDownload } from "../../../src/cli/terminal/downloads.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { fixtures, llama, temporaryFolder } from "../../helpers/folders.ts";
import { FakeHub, faults } from "../../helpers/hub-server.ts";
import { CapturedStream, kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
const feedback = `${fixtures}/llama/data.jsonl`;
const model = new FakeHub("tiny/llama", {
  "config.json": readFileSync(`${llama}/config.json`),
  "model.safetensors": readFileSync(`${llama}/model.safetensors`),
});
const [begin, end] = (() => {
  const lines = readFileSync(feedback, "utf8").trimEnd().split("\n");
  return [lines.slice(0, 3), lines.slice(3)].map((part) => Buffer.from(`${part.join("\n")}\n`));
})();
const dataset = new FakeHub(
  "tiny/rows",
  {
    "data/train-00000-of-00002.jsonl": begin ?? Buffer.alloc(0),
    "data/train-00001-of-00002.jsonl": end ?? Buffer.alloc(0),
    "data/test-00000-of-00001.jsonl": Buffer.from("not rows"),
  },
  "datasets",
);

beforeAll(async () => {
  for (const name of ["HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"]) vi.stubEnv(name, "");
  vi.stubEnv("HF_HOME", join(folder, "hf"));
  await Promise.all([model.start(), dataset.start()]);
});
afterAll(() => {
  model.stop();
  dataset.stop();
  vi.unstubAllEnvs();
});

test("kto logps with a hub id gives the lines of the local folder, and shows the download", async () => {
  const local = await kto("logps", "--model", llama, "--dataset", feedback, "--json");
  vi.stubEnv("HF_ENDPOINT", model.endpoint);
  const words = ["logps", "--model", "tiny/llama", "--dataset", feedback, "--json"];
  const first = await kto(...words, "--model_revision", "v1");
  expect(first.code, first.stderr).toBe(0);
  expect(first.stdout).toBe(local.stdout);
  expect(first.stderr).toMatch(/^downloading model\.safetensors {2}0\.1 of 0\.1 MiB/m);
  expect(readFileSync(join(folder, "hf", "hub", "models--tiny--llama", "refs", "v1"), "utf8")).toBe(model.commit);
  const second = await kto(...words, "--model_revision", "v1", "--ref_model_name_or_path", "tiny/llama");
  expect(second.code, second.stderr).toBe(0);
  expect(second.stderr).not.toContain("downloading");

  vi.stubEnv("HF_ENDPOINT", dataset.endpoint);
  const rows = await kto("logps", "--model", llama, "--dataset", "tiny/rows", "--json");
  expect(rows.code, rows.stderr).toBe(0);
  // The rows of the second file are counted from its own beginning.
  const withoutIndex = (text: string) => text.replace(/"index":\d+,/g, "");
  expect(withoutIndex(rows.stdout)).toBe(withoutIndex(local.stdout));
});

test("a hub that refuses is one sentence and the exit code of files; one that is away leaves a warning", async () => {
  vi.stubEnv("HF_ENDPOINT", model.endpoint);
  model.faults.api = [faults.status(401)];
  const refused = await kto("logps", "--model", "tiny/llama", "--dataset", feedback, "--json");
  expect(refused).toMatchObject({ code: 7, stdout: "" });
  expect(refused.stderr).toMatch(/^error: The hub does not show the model "tiny\/llama" \(HTTP 401\): check the id/m);

  vi.stubEnv("HF_HUB_OFFLINE", "1");
  const offline = await kto("generate", "--model", "tiny/other", "--prompt", "x");
  expect(offline.code).toBe(7);
  expect(offline.stderr).toMatch(
    /error: The hub is offline \(HF_HUB_OFFLINE\), and the model "tiny\/other" is neither/,
  );
  // A folder with a slip of the hand has the form of an id.
  const mistyped = await kto("generate", "--model", "test/fixture", "--prompt", "x");
  expect([mistyped.code, mistyped.stderr]).toEqual([
    7,
    expect.stringMatching(
      /error: There is no file or folder "test\/fixture"; did you mean "test\/fixtures"\? As a repo/,
    ),
  ]);
  const path = await kto("generate", "--model", "./test/fixture", "--prompt", "x");
  expect(path.stderr).toMatch(
    /error: There is no file or folder "\.\/test\/fixture"; did you mean "test\/fixtures"\?$/m,
  );
  vi.stubEnv("HF_HUB_OFFLINE", "");
});

describe("the line of a download", () => {
  const progress = { file: "model.safetensors", bytes: 3 * 2 ** 20, totalBytes: 10 * 2 ** 20 };

  test("has what fits", () => {
    const timing = { bytesPerSecond: 2 ** 20 };
    expect(renderDownload(progress, timing)).toBe(
      "downloading model.safetensors  3.0 of 10.0 MiB  1.0 MiB/s  0:07 left",
    );
    expect(renderDownload(progress, timing, 50)).toBe("downloading 3.0 of 10.0 MiB  1.0 MiB/s  0:07 left");
    expect(renderDownload(progress, timing, 30)).toBe("downloading 3.0 of 10.0 MiB");
    expect(renderDownload(progress, {}, 5)).toBe("3.0 o");
  });

  test("is redrawn in place on a terminal, and a line every few seconds elsewhere", () => {
    let now = 0;
    const states = [1, 2, 3, 4].map((part) => ({ ...progress, bytes: part * 2 ** 20 }));
    const write = (stream: CapturedStream, stepMs: number) => {
      const line = new DownloadLine(stream, { now: () => now });
      for (const state of states) {
        line.update(state);
        now += stepMs;
      }
      line.clear();
      line.redraw();
      line.finish();
      return stream.text;
    };
    expect(
      write(new CapturedStream(), 3000)
        .split("\n")
        .map((line) => line.slice(30, 42)),
    ).toEqual([
      "  1.0 of 10.".slice(1).concat("0"),
      "  3.0 of 10.".slice(1).concat("0"),
      "  4.0 of 10.".slice(1).concat("0"),
      "",
    ]);
    const terminal = write(new CapturedStream({ columns: 80 }), 60);
    expect(terminal.match(/\r/g)).toHaveLength(4);
    const wiped = "\r\x1b[K";
    expect(terminal).toContain(`${wiped}\rdownloading model.safetensors  4.0 of 10.0 MiB  `);
    expect(terminal.endsWith("\x1b[K\n")).toBe(true);
  });
});

test("kto doctor reads a model's configuration and the headers of its weights, and no weights", async () => {
  vi.stubEnv("HF_ENDPOINT", model.endpoint);
  vi.stubEnv("HF_HUB_CACHE", join(folder, "headers"));
  const weights = model.files["model.safetensors"] ?? Buffer.alloc(0);
  const header = 8 + Number(weights.readBigUInt64LE(0));
  model.seen.length = 0;
  const { code, stdout, stderr } = await kto("doctor", "--model", "tiny/llama", "--json");
  expect(code, stderr).toBe(0);
  const local = await kto("doctor", "--model", llama, "--json");
  const runsOf = (text: string) => (JSON.parse(text) as { model: PossibleRuns }).model;
  expect(runsOf(stdout)).toEqual({ ...runsOf(local.stdout), model_name_or_path: "tiny/llama" });
  const asked = model.seen.filter(({ what }) => what === "CDN model.safetensors").map(({ range }) => range);
  expect(asked.length).toBeGreaterThan(0);
  for (const range of asked) {
    const [, first = "", last = ""] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
    expect(Number(first)).toBeLessThan(Number(last));
    expect(Number(last)).toBeLessThan(Math.max(header, 200));
  }
  model.faults["CDN model.safetensors"] = [faults.ignoreRange(weights)];
  const whole = await kto("doctor", "--model", "tiny/llama");
  expect([whole.code, whole.stderr]).toEqual([
    7,
    expect.stringMatching(/its server sends whole files only \(HTTP 200/),
  ]);
  expect(whole.stdout).toMatch(/^\* 0 {2}/m);
});
