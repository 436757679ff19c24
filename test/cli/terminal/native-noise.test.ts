/**
 * What drivers and Dawn write to stderr by themselves, on a machine whose drivers do not fit: shown with --debug only.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fileIn, freshPath, jsonl, stories, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const withoutDriver = { ...process.env, VK_DRIVER_FILES: "/nowhere.json", VK_ICD_FILENAMES: "/nowhere.json" };

/** stderr of `kto doctor`, which asks for every adapter, with these words behind it in a shell. */
function doctor(words: string): string {
  const env = { ...withoutDriver, KTO_ADAPTER: "" };
  return spawnSync("bash", ["-c", `node bin/kto.js doctor ${words}`], { encoding: "utf8", env }).stdout;
}

test("none in a pipe, none in a log that is appended to", () => {
  const log = freshPath(folder, "log");
  expect(doctor("2>&1 >/dev/null | cat")).toBe("");
  expect(doctor(`2>>${log} >/dev/null`)).toBe("");
  expect(readFileSync(log, "utf8")).toBe("");
});

test("none in a file of its own; one that a script writes on into keeps its place, and loses nothing", () => {
  const log = freshPath(folder, "log");
  expect(doctor(`2>${log} >/dev/null`)).toBe("");
  expect(readFileSync(log, "utf8")).toBe("");
  const script = `{ echo before; node bin/kto.js doctor --adapter none; echo after; } 2>${log} >&2`;
  spawnSync("bash", ["-c", script], { env: { ...withoutDriver, KTO_ADAPTER: "" } });
  expect(readFileSync(log, "utf8")).toMatch(/^before\n[\s\S]*\nafter\n$/);
});

test("none in a socket, as Node gives it to what it starts, and all that the command says itself, in order", () => {
  const start = (...words: string[]) =>
    spawnSync(process.execPath, ["bin/kto.js", ...words], {
      encoding: "utf8",
      env: { ...withoutDriver, KTO_ADAPTER: "" },
    });
  expect(start("doctor").stderr).toBe("");
  const rows = fileIn(folder, "rows.jsonl", jsonl([{ prompt: "Once", completion: " upon", label: true }]));
  const words = ["logps", "--model_name_or_path", stories, "--dataset_name", rows, "--overwrite_cache"];
  const env = { ...process.env, KTO_CACHE: freshPath(folder, "cache") };
  const { stdout: inPipe } = spawnSync("bash", ["-c", `node bin/kto.js ${words.join(" ")} 2>&1 >/dev/null | cat`], {
    encoding: "utf8",
    env,
  });
  const { stderr } = spawnSync(process.execPath, ["bin/kto.js", ...words], { encoding: "utf8", env });
  expect(stderr).toBe(inPipe);
  expect(stderr).toMatch(/^adapter/);
});

test("--debug shows them", () => {
  expect(doctor("--debug 2>&1 >/dev/null | cat")).toMatch(/^Warning: .*nowhere\.json/m);
});

test("the scripts leave them out, line by line, and nothing else", () => {
  const filter = `import { createInterface } from "node:readline";
    import { nativeNoise } from "./scripts/native-noise.mjs";
    const isNoise = nativeNoise();
    createInterface({ input: process.stdin }).on("line", (line) => { if (!isNoise(line)) console.log(line); });`;
  const adapters = spawnSync(process.execPath, ["--import", "tsx", "scripts/adapter.ts"], {
    encoding: "utf8",
    env: withoutDriver,
  });
  expect(adapters.stderr).toMatch(/^Warning: .*nowhere\.json/m);
  const own = "Error: no rows\n    at read (rows.ts:1:1)\n\nnext\n";
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", filter], {
    input: `first\n${adapters.stderr}${own}`,
    encoding: "utf8",
  });
  expect(stdout).toBe(`first\n${own}`);
});
