/**
 * The long form of test/examples/browser.test.ts: `npx tsx scripts/browser-long.ts`. Headless Chromium tells 48 stories
 * of 100 tokens, gives them the thumbs of the quickstart's rule, and trains 40 updates of 16 rows with all features that
 * its adapter has; Node does the same on SwiftShader. Prints how far losses and margins are apart, and ends with 1 where
 * that is more than 1e-5 at the start or 1e-3 at the end, since differences of the last digits grow with the updates.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Session } from "../examples/browser/session.ts";
import { modelFolder } from "../examples/quickstart/stories.ts";
import { Device, readFeedback, tokenizeRows } from "../src/index.ts";
import { openChromium } from "../test/helpers/browser.ts";
import { ExamplePage } from "../test/helpers/example-page.ts";
import { buildBrowserPage, serveFolder } from "./browser-page.mjs";

const choices = { max_steps: 40, per_device_train_batch_size: 16, learning_rate: 5e-4, beta: 0.1 };
/** Updates whose losses must be the same to 1e-5. */
const FIRST = 5;

const folder = mkdtempSync(join(tmpdir(), "kto-browser-"));
await buildBrowserPage(join(import.meta.dirname, ".."), join(folder, "page"));
const { address, close } = await serveFolder(join(folder, "page"), 0);
const browser = await openChromium({ webgpu: true });
try {
  const page = await browser.newPage({ locale: "en-US" });
  page.setDefaultTimeout(60 * 60_000);
  const example = new ExamplePage(page);
  await page.goto(`${address}?tuning=off`);
  await example.ready(0);
  await page.getByLabel("Stories", { exact: true }).fill("24");
  await page.getByLabel("Tokens of each").fill("100");
  for (let round = 0; round < 2; round++) {
    await example.button("Tell more stories").click();
    await page.getByRole("status").filter({ hasText: "Telling" }).waitFor();
    await example.ready(0);
    console.log(`${24 * (round + 1)} stories told`);
  }
  await example.button("Give the others the thumbs of a rule").click();
  await example.choose(choices);
  await example.button("Train").click();
  await example.ready(choices.max_steps);
  const log = readFileSync(await example.download("metrics.jsonl", folder), "utf8");
  const shown = log
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number>);

  const device = await Device.open({ adapter: "swiftshader", tuning: "off" });
  const session = await Session.whole(device, modelFolder);
  const { vocabSize, contextLength } = session.policy.config;
  const rows = await readFeedback(await example.download("thumbs.jsonl", folder));
  const { examples } = tokenizeRows(rows, { vocabSize, contextLength });
  let worst = 0;
  const onWarning = (sentence: string) => console.warn(sentence);
  await session.train(
    {
      examples,
      choices,
      onWarning,
      onStep: async ({ step, metrics = {} }) => {
        const far = ["loss", "rewards/margins"].map((name) => {
          return Math.abs((metrics[name] ?? Number.NaN) - (shown[step - 1]?.[name] ?? Number.NaN));
        });
        console.log(
          `update ${step}: loss ${metrics.loss}, apart by ${far.map((one) => one.toExponential(1)).join(", ")}`,
        );
        worst = Math.max(worst, Math.max(...far) / (step <= FIRST ? 1e-5 : 1e-3));
      },
    },
    join(folder, "node"),
  );
  device.close();
  console.log(worst < 1 ? "the browser trains as Node does" : "the browser does not train as Node does");
  process.exitCode = worst < 1 ? 0 : 1;
} finally {
  await browser.close();
  await close();
  rmSync(folder, { recursive: true, force: true });
}
