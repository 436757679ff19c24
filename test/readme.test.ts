/** What the README promises about itself: its TypeScript example runs as it stands, its files and commands exist. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, expect, test, vi } from "vitest";
import { Model } from "../src/index.ts";
import { sharedDevice } from "./helpers/device.ts";

const root = join(import.meta.dirname, "..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const folder = join(root, ".cache", "readme");

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("the TypeScript example trains and saves a model", async () => {
  const code = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
  expect(code).toContain('from "kto-webgpu"');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, "example.ts");
  // Only the package's name and the place of the result are changed: a checkout is not installed as a package.
  const out = join(folder, "model");
  const sources = pathToFileURL(join(root, "src", "index.ts")).href;
  writeFileSync(
    file,
    code.replace('"kto-webgpu"', JSON.stringify(sources)).replace('"out/readme"', JSON.stringify(out)),
  );
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    await import(/* @vite-ignore */ pathToFileURL(file).href);
    const lines = log.mock.calls;
    expect(lines[0]).toEqual(["354 thumbs up, 1817 thumbs down"]);
    expect(lines.slice(1).map(([place]) => place)).toEqual(["1/5", "2/5", "3/5", "4/5", "5/5"]);
    expect(lines.slice(1).every(([, loss]) => Number.isFinite(loss))).toBe(true);
  } finally {
    log.mockRestore();
  }
  const saved = await Model.load(await sharedDevice(), out);
  expect(saved.config.vocabSize).toBe(512);
  saved.free();
});

test("every file that it links to exists", () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, link = ""]) => link);
  expect(links.length).toBeGreaterThan(4);
  expect(links.filter((link) => !existsSync(join(root, link)))).toEqual([]);
});

test("the commands of its table are those of the program, and its exit codes those of the errors", async () => {
  const { kto } = await import("./helpers/streams.ts");
  const { stdout } = await kto("--help");
  const named = [...readme.matchAll(/^\| `kto (\w+)` \|/gm)].map(([, name = ""]) => name).sort();
  const commands = /Commands:\n([\s\S]*?)\n\n/.exec(stdout)?.[1] ?? "";
  expect(named).toEqual(
    [...commands.matchAll(/^ {2}(\w+) /gm)]
      .map(([, name = ""]) => name)
      .filter((name) => name !== "help")
      .sort(),
  );

  const errors = await import("../src/errors.ts");
  const codes = Object.values(errors).flatMap((value) => {
    if (typeof value !== "function" || !(value.prototype instanceof errors.KtoError)) return [];
    return new (value as new (message: string) => InstanceType<typeof errors.KtoError>)("").exitCode;
  });
  const documented = [...readme.matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code));
  // InterruptedError has one for each signal.
  const all = new Set([0, 1, ...codes, ...Object.values(errors.SIGNAL_CODES)]);
  expect(documented).toEqual([...all].sort((a, b) => a - b));
});

test("the run that it shows is one of the present quickstart", () => {
  const source = readFileSync(join(root, "examples/quickstart/run.ts"), "utf8");
  const number = (name: string) => new RegExp(`${name}: ([\\d.e-]+)`).exec(source)?.[1];
  const rows = number("per_device_train_batch_size");
  expect(readme).toContain(
    `${number("max_steps")} updates of ${rows} rows, beta ${number("beta")}, learning rate ${Number(number("learning_rate"))},`,
  );
  const words = /update [^\n]*?loss[^\n]*/.exec(readme)?.[0].match(/[a-z][a-z ]*[a-z]/g) ?? [];
  expect(words.length).toBeGreaterThan(5);
  for (const word of words) expect(source).toContain(word);
});
