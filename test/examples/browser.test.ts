/**
 * The page of examples/browser in a real Chromium, on SwiftShader, with the limits that every adapter has: a visitor
 * gives thumbs and trains, and the losses are Node's on the same adapter; files go out and in again; an adapter over a
 * dropped model; what is said of a lost device, a hidden tab and no WebGPU; keyboard, themes, small screens, axe-core.
 * What it looks like is left in .cache/screens. `npx tsx scripts/browser-long.ts` is the long form.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import type { Browser, Page, Route } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Session } from "../../examples/browser/session.ts";
import { buildBrowserPage, serveFolder } from "../../scripts/browser-page.mjs";
import { Device, loadAdapter, Model, readFeedback, tokenizeRows } from "../../src/index.ts";
import { hasChromium, openChromium, pictureFolder } from "../helpers/browser.ts";
import { ExamplePage } from "../helpers/example-page.ts";
import { fileIn, jsonl, stories, temporaryFolder } from "../helpers/folders.ts";

const root = resolve(import.meta.dirname, "../..");
const temporary = temporaryFolder();
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** For hangs alone: SwiftShader takes a minute to compile what a training needs. */
const PATIENCE_MS = 10 * 60_000;
/** The learning rate is high, so that stories change in three updates. */
const choices = { max_steps: 3, per_device_train_batch_size: 4, learning_rate: 2e-3, beta: 0.1 };
const feedback = fileIn(
  temporary,
  "feedback.jsonl",
  jsonl(
    [true, false, true, false].map((label, at) => ({
      prompt: `Once there was a ${at < 2 ? "cat" : "dog"}.`,
      completion: label ? " It was happy and it played." : " It was sad and it cried.",
      label,
    })),
  ),
);

const pageFolder = join(temporary, "page");
const built = buildBrowserPage(root, pageFolder);

test("the page holds nothing of Node, and is as small as docs/browser.md says", async () => {
  const { inputs } = await built;
  expect(Object.keys(inputs).filter((name) => /platform\/node/.test(name))).toEqual([]);
  const scripts = ["app.js", "app.css", "worker.js"].map((name) => readFileSync(join(pageFolder, name)));
  const sum = (sizes: readonly number[]) => sizes.reduce((all, size) => all + size, 0) / 1e6;
  const text = readFileSync(join(root, "docs", "browser.md"), "utf8");
  const [, whole, compressed] = /takes ([\d.]+) MB of scripts \(([\d.]+) MB compressed\)/.exec(text) ?? [];
  expect(Math.abs(sum(scripts.map(({ length }) => length)) / Number(whole) - 1)).toBeLessThan(0.05);
  expect(Math.abs(sum(scripts.map((one) => gzipSync(one).length)) / Number(compressed) - 1)).toBeLessThan(0.05);
});

describe.runIf(hasChromium)("the page in Chromium", () => {
  let browser: Browser;
  let page: Page;
  let example: ExamplePage;
  let served: Awaited<ReturnType<typeof serveFolder>>;
  let device: Device;
  const faults: string[] = [];

  beforeAll(async () => {
    await built;
    served = await serveFolder(pageFolder, 0);
    browser = await openChromium({ webgpu: true });
    page = await openPage();
    example = new ExamplePage(page);
    device = await Device.open({ adapter: "swiftshader", tuning: "off", features: "core" });
  });

  afterAll(async () => {
    await browser?.close();
    await served?.close();
    device?.close();
    expect(faults).toEqual([]);
  });

  /** The page as it is opened; `before` may change what its worker finds. */
  async function openPage(before: (opened: Page) => Promise<void> = async () => {}): Promise<Page> {
    const opened = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: "en-US" });
    opened.setDefaultTimeout(PATIENCE_MS);
    opened.on("pageerror", (error) => faults.push(error.message));
    // A policy that refuses something says so here too.
    opened.on("console", (message) => {
      if (message.type() === "error") faults.push(message.text());
    });
    await before(opened);
    await opened.goto(`${served.address}?tuning=off&features=core`);
    return opened;
  }

  const ready = (updates: number) => example.ready(updates);
  const button = (name: string) => example.button(name);
  const thumb = (kind: "up" | "down", story: number) => example.thumb(kind, story);
  const picture = (name: string) =>
    page.screenshot({ path: join(pictureFolder(), `browser-${name}.png`), fullPage: true });
  const storyTexts = (count: number) =>
    Promise.all(Array.from({ length: count }, (_, id) => example.story(id).innerText()));

  const trained = join(temporary, "trained");
  mkdirSync(trained);

  test("tells stories at once, and asks for thumbs before it trains", async () => {
    await ready(0);
    expect((await storyTexts(6)).every((text) => text.length > 60)).toBe(true);
    expect(await button("Train").isDisabled()).toBe(true);
    await thumb("up", 1).focus();
    await page.keyboard.press("Space");
    expect(await thumb("up", 1).getAttribute("aria-pressed")).toBe("true");
    expect(await page.locator("#missing").innerText()).toContain("there is none down yet");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter"); // another opinion on the same story
    expect(await thumb("down", 1).getAttribute("aria-pressed")).toBe("true");
    await thumb("up", 2).click();
    await thumb("down", 3).click();
    await thumb("up", 4).click();
    for (const [colorScheme, width] of [
      ["dark", 390],
      ["light", 1280],
    ] as const) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await picture(`before-${colorScheme}-${width}`);
    }
    await expect.poll(() => button("Train").isEnabled()).toBe(true);
  });

  test("trains on the thumbs, takes clicks meanwhile, and says what a hidden tab did", async () => {
    await example.choose(choices);
    await button("Train").focus();
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Stop" }).waitFor();
    await setHidden(true);
    await page.getByRole("progressbar").waitFor();
    expect(await page.title()).toMatch(/^[123] of 3 - /);
    await setHidden(false);
    await picture("during-light-1280");
    await page.getByText(/This tab was hidden for \d+ s, in which \d updates? (was|were) made/).waitFor();
    await thumb("up", 6).click();
    expect(await thumb("up", 6).getAttribute("aria-pressed")).toBe("true");
    await thumb("up", 6).click();
    await ready(3);
    expect(await page.locator("section[aria-labelledby=changed] mark").count()).toBeGreaterThan(0);
    expect(await page.locator("figure").first().getAttribute("data-points")).toBe("3");
  });

  /** As the browser says it when another tab is chosen. */
  async function setHidden(isHidden: boolean): Promise<void> {
    await page.evaluate((value) => {
      Object.defineProperty(document, "visibilityState", { value: value ? "hidden" : "visible", configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, isHidden);
  }

  test("its losses are those of Node on the same adapter, thumbs and seed, and so is the model", async () => {
    const thumbs = await example.download("thumbs.jsonl", temporary);
    const log = readFileSync(await example.download("metrics.jsonl", temporary), "utf8");
    const shown = log
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, number>);
    const session = await Session.whole(device, stories);
    const { vocabSize, contextLength } = session.policy.config;
    const { examples } = tokenizeRows(await readFeedback(thumbs), { vocabSize, contextLength });
    expect(examples.map(({ label }) => label)).toEqual([false, true, false, true]);
    const losses: Record<string, number>[] = [];
    const own = join(temporary, "node");
    const onStep = async ({ step, metrics = {} }: { step: number; metrics?: Record<string, number> }) => {
      losses.push({ step, ...metrics });
    };
    await session.train({ examples, choices, onStep, onWarning: (sentence) => faults.push(sentence) }, own);
    expect(shown.map(({ step }) => step)).toEqual([1, 2, 3]);
    for (const name of ["loss", "rewards/margins", "kl/unclamped"]) {
      const far = shown.map((line, at) => Math.abs((line[name] ?? Number.NaN) - (losses[at]?.[name] ?? Number.NaN)));
      expect(Math.max(...far), name).toBeLessThan(1e-5);
    }
    expect(new Set(losses.map(({ loss }) => loss)).size).toBe(3);
    // The picture shows the last update: every row at its u and v.
    const points = await page
      .locator(".point")
      .evaluateAll((all) => all.map((one) => Number(one.getAttribute("data-v"))));
    expect(points.length).toBe(4);
    expect(points.every((v) => v > 0 && v < 2)).toBe(true);
    session.free();
  });

  test.each([
    ["dark", 390],
    ["light", 390],
    ["dark", 1280],
    ["light", 1280],
  ] as const)("in %s at %d pixels it fits, and axe-core finds nothing serious", async (colorScheme, width) => {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    await page.locator(".uplot").first().waitFor();
    const fit = () =>
      page.evaluate(() => ({
        wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        clipped: [...document.querySelectorAll("figure, section, li, header, button, label")]
          .filter((element) => element.scrollWidth > element.clientWidth + 1)
          .map((element) => element.outerHTML.slice(0, 100)),
        // Texts of pictures that reach over their edge.
        cut: [...document.querySelectorAll("svg text")]
          .filter((text) => {
            const [own, whole] = [text.getBoundingClientRect(), text.closest("svg")?.getBoundingClientRect()];
            return whole === undefined || own.left < whole.left - 0.5 || own.right > whole.right + 0.5;
          })
          .map((text) => text.textContent),
      }));
    // Plots are drawn again for the new width a moment later.
    await expect.poll(fit, { timeout: 30_000 }).toEqual({ wide: 0, clipped: [], cut: [] });
    await page.evaluate(axe);
    const serious = await page.evaluate(async () => {
      const { violations } = await (
        globalThis as unknown as {
          axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }> };
        }
      ).axe.run();
      return violations
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .map(({ id, nodes }) => `${id}: ${nodes[0]?.html.slice(0, 120)}`);
    });
    expect(serious).toEqual([]);
    await picture(`after-${colorScheme}-${width}`);
  });

  test("the trained model is a folder that loads in Node, and its weights load in the page again", async () => {
    for (const name of await page.locator(".links a").allInnerTexts()) {
      if (!name.endsWith(".jsonl")) await example.download(name, trained);
    }
    const session = await Session.whole(device, trained);
    const before = await storyTexts(6);
    await page.getByLabel("Load a model.safetensors again").setInputFiles(join(trained, "model.safetensors"));
    await ready(0);
    await page.locator('.story[data-id="11"]').waitFor(); // six more, by the weights that were loaded
    await ready(0);
    const prompts = await page.locator(".story b").allInnerTexts();
    const asked = prompts
      .slice(0, 6)
      .reverse()
      .map((prompt, at) => ({ id: 6 + at, prompt }));
    const told = await session.tell(asked, 7, 48);
    const shown = await Promise.all(asked.map(({ id }) => example.story(id).innerText()));
    const oneLine = (text: string) => text.replace(/\s+/g, " ").trim();
    expect(shown.map(oneLine)).toEqual(told.map(({ prompt, text }) => oneLine(prompt + text)));
    expect(await storyTexts(6)).toEqual(before);
    session.free();
  });

  test("a dropped model folder and feedback file give a LoRA adapter, which loads in Node and in the page", async () => {
    await example.drop("Your own model", [resolve(stories), feedback]);
    await page.getByText("Feedback: feedback.jsonl").waitFor();
    await page.getByLabel("Rank of the adapter").fill("4");
    await button("Open").click();
    await ready(0);
    expect(await page.locator("main").innerText()).toMatch(
      /LoRA adapter of [\d,]+ parameters, and 2 thumbs up, 2 down/,
    );
    await example.choose({ ...choices, max_steps: 2 });
    await button("Train").click();
    await ready(2);
    const folder = join(temporary, "adapter");
    mkdirSync(folder);
    const names = ["adapter_config.json", "adapter_model.safetensors"];
    const files: string[] = [];
    for (const name of names) files.push(await example.download(name, folder));
    const config = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8"));
    expect(config).toMatchObject({ peft_type: "LORA", r: 4, base_model_name_or_path: "model" });
    const model = await Model.load(device, stories);
    const adapter = await loadAdapter(model, folder);
    expect(await adapter.addsNothing()).toBe(false);
    adapter.free();
    model.free();
    await page.getByLabel("Load an adapter again").setInputFiles(files);
    await ready(0);
    expect(await page.locator("[role=alert]").count()).toBe(0);
    // What is no model says so in a sentence.
    writeFileSync(join(folder, "adapter_config.json"), "{}");
    await page.getByLabel("Load an adapter again").setInputFiles(files);
    await page.getByRole("alert").filter({ hasText: "adapter_config.json" }).waitFor();
  });

  test("a lost device is named, and the page goes on with another one", async () => {
    const session = await browser.newBrowserCDPSession();
    await session.send("Browser.crashGpuProcess").catch(() => undefined); // the answer may be lost with it
    await page
      .getByRole("alert")
      .filter({ hasText: /The device .* was lost/ })
      .waitFor();
    await button("Open it again").click();
    await ready(0);
    faults.length = 0; // the browser tells of its GPU process by itself
  });

  test.each([
    [
      "no WebGPU",
      'Object.defineProperty(WorkerNavigator.prototype, "gpu", { get: () => undefined });',
      "has no WebGPU",
    ],
    ["no adapter", "GPU.prototype.requestAdapter = async () => null;", "No WebGPU adapter was found"],
    [
      "a page that is not secure",
      'Object.defineProperty(WorkerNavigator.prototype, "gpu", { get: () => undefined }); Object.defineProperty(globalThis, "isSecureContext", { value: false });',
      "not served over https",
    ],
  ])("%s: the page says so", async (_, prefix, sentence) => {
    const withPrefix = async (route: Route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `${prefix}\n${await response.text()}` });
    };
    const other = await openPage(async (opened) => {
      await opened.route("**/worker.js", withPrefix);
    });
    await other.getByRole("alert").filter({ hasText: sentence }).waitFor();
    expect(await other.getByRole("button", { name: "Train" }).isDisabled()).toBe(true);
    await other.close();
  });

  test("a browser that names its language as no Intl takes it shows the page all the same", async () => {
    const other = await openPage(async (opened) => {
      await opened.addInitScript(() => {
        Object.defineProperty(Navigator.prototype, "language", { get: () => "en-US@posix", configurable: true });
      });
    });
    await other.getByRole("heading", { name: "Stories and thumbs" }).waitFor();
    expect(await other.evaluate(() => navigator.language)).toBe("en-US");
    await other.close();
  });
});
