/**
 * What the README promises about itself: its TypeScript example runs as it stands, its commands and its figures exist.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, expect, test, vi } from "vitest";
import { training, wholeRun } from "../examples/quickstart/align.ts";
import { Model } from "../src/index.ts";
import { shareDeviceWithCommands } from "./helpers/commands.ts";
import { sharedDevice } from "./helpers/device.ts";

const root = join(import.meta.dirname, "..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const folder = join(root, ".cache", "readme");

shareDeviceWithCommands();
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
    expect(lines.map(([step]) => step)).toEqual([1, 2, 3, 4, 5]);
    expect(lines.every(([, loss, margin]) => Number.isFinite(loss) && Number.isFinite(margin))).toBe(true);
  } finally {
    log.mockRestore();
  }
  const saved = await Model.load(await sharedDevice(), out);
  expect(saved.config.vocabSize).toBe(512);
  saved.free();
});

test("the commands of its table are those of the program", async () => {
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
});

test("the run that it shows is one of the present quickstart", () => {
  const source = readFileSync(join(root, "examples/quickstart/align.ts"), "utf8");
  const { max_steps: updates, per_device_train_batch_size: rows, learning_rate: rate } = wholeRun;
  expect(readme).toContain(`${updates} updates of ${rows} rows, beta ${training.beta}, learning rate ${rate},`);
  const words = /update [^\n]*?loss[^\n]*/.exec(readme)?.[0].match(/[a-z][a-z ]*[a-z]/g) ?? [];
  expect(words.length).toBeGreaterThan(5);
  for (const word of words) expect(source).toContain(word);
});
