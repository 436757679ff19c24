/**
 * The dashboard's page in a real browser: it watches a training that goes on, its picture has gradcheck's numbers, it
 * survives its server's end and names with HTML, obeys the keyboard, both themes, small screens, and axe-core. What it
 * looks like is left in .cache/screens.
 */
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Browser, Page, Request } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DashboardServer } from "../../../src/cli/server/dashboard-server.ts";
import { pageFiles } from "../../../src/cli/server/page-files.ts";
import { PARTS, type PagePart } from "../../../src/dashboard/page/asking.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { hasChromium, openChromium, pictureFolder } from "../../helpers/browser.ts";
import { builtModule } from "../../helpers/built.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { writeToldRun } from "../../helpers/dashboard-run.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { loadModel, readExamples, readExpected } from "../../helpers/fixtures.ts";
import { fixtures, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const runs = join(temporaryFolder(), "runs");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const trained = join(runs, "trained");
const told = join(runs, "told");
/** Names of runs are long where they say what was tried. */
const toldAgain = join(runs, "told again with mistralai-Ministral-3-8B-Instruct-2512-lora-r16-lr1e-3-seed42");
const evil = join(runs, "<img src=x onerror=window.hacked=1>");
const rows = readExamples("llama");
const { hyperparameters } = readExpected("llama");

/** What is there once a part has its answers. */
const AWAITED: Readonly<Record<PagePart, string>> = {
  overview: ".uplot",
  "value-function": ".point",
  rewards: ".median",
  rows: ".rows li",
  samples: ".samples article, .side-by-side .faint",
  curves: ".uplot",
  configuration: ".values",
  events: ".events li",
};

/** The words of a run over all rows at once. */
const words = (output: string, ...more: string[]) => [
  ...["train", "--model_name_or_path", `${fixtures}/llama/policy`, "--dataset_name", `${fixtures}/llama/data.jsonl`],
  ...["--ref_model_name_or_path", `${fixtures}/llama/reference`, "--output_dir", output, "--save_strategy", "no"],
  ...["--per_device_train_batch_size", String(rows.length), "--logging_steps", "1", "--learning_rate", "1e-3"],
  ...["--beta", String(hyperparameters.beta), ...more],
];

describe.runIf(hasChromium)("the dashboard in Chromium", () => {
  let server: DashboardServer;
  let browser: Browser;
  let page: Page;
  const faults: string[] = [];

  const start = async (port: number) => {
    const onWarning = (text: string) => void faults.push(text);
    server = await DashboardServer.start({ folders: [runs], port, page: await pageFiles(), onWarning });
  };

  beforeAll(async () => {
    builtModule("index"); // and with it the page
    mkdirSync(evil, { recursive: true });
    writeToldRun(told, { learning_rate: 5e-4, beta: 0.1, seed: 42 });
    writeToldRun(toldAgain, { learning_rate: 1e-3, beta: 0.1, seed: 42 });
    writeFileSync(join(evil, "metrics.jsonl"), '{"step":1,"loss":0.5,"<b onmouseover=alert(1)>":1}\n');
    const { code, stderr } = await kto(...words(trained, "--max_steps", "12"));
    expect(code, stderr).toBe(0);
    await start(0);
    browser = await openChromium();
    page = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: "en-US" });
    page.setDefaultTimeout(20_000);
    page.on("pageerror", (error) => faults.push(error.message));
    page.on("dialog", () => faults.push("a dialog was opened"));
    page.on("console", (message) => {
      // Of a server that is away the browser tells by itself.
      if (message.type() === "error" && !/ERR_CONNECTION|ERR_INCOMPLETE/.test(message.text()))
        faults.push(message.text());
    });
    await page.goto(server.address);
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
    expect(faults).toEqual([]);
  });

  const box = (name: string) => page.getByRole("checkbox", { name });
  const runsList = () => page.getByRole("navigation", { name: "Runs" });
  /** Shows this part of the page. */
  const open = (part: string) => page.getByRole("tab", { name: part, exact: true }).click();
  const figure = (title: string) => page.locator("figure", { hasText: title }).first();
  /** Points of a curve. */
  const points = async (title: string) => Number(await figure(title).getAttribute("data-points"));
  /** Shows this run alone. */
  const showOnly = async (name: string) => {
    await box(name).check();
    for (const other of await page.locator("nav li").filter({ hasNotText: name }).getByRole("checkbox").all()) {
      await other.uncheck();
    }
  };

  test("names with HTML are shown as they are, and nothing of them runs", async () => {
    await showOnly("<img src=x");
    await expect.poll(() => runsList().innerText()).toContain("<img src=x onerror=window.hacked=1>");
    await open("Curves");
    await page.getByText("Other metrics (1)").click();
    await expect.poll(() => page.locator("main").innerText()).toContain("<b onmouseover=alert(1)>");
    await page.getByText("Other metrics (1)").click();
    expect(await page.evaluate("window.hacked")).toBeUndefined();
    expect(await page.locator("nav img").count()).toBe(0);
  });

  test("the picture of the value function has every row, with gradcheck's numbers at the first update", async () => {
    await showOnly("trained");
    await open("Value function");
    const slider = page.getByRole("slider", { name: /^Update/ });
    await page.locator(".point").first().waitFor();
    await slider.focus();
    await page.keyboard.press("Home");
    await page.locator("svg[aria-label*='update 1:']").waitFor();
    const shown = await page.locator(".point").evaluateAll((all) =>
      all.map((point) => ({
        index: Number(point.getAttribute("data-index")),
        u: Number(point.getAttribute("data-u")),
        up: point.classList.contains("up"),
      })),
    );
    const device = await sharedDevice();
    const [policy, reference] = [
      await loadModel(device, "llama", "policy"),
      await loadModel(device, "llama", "reference"),
    ];
    const { beta } = hyperparameters;
    const check = await checkGradients({
      ...{ policy, reference, examples: shown.flatMap(({ index }) => rows[index] ?? []) },
      objective: { beta, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" },
    });
    policy.free();
    reference.free();
    expect(shown.map(({ index }) => index).sort()).toEqual(rows.map((_, index) => index));
    for (const [at, { u, up, index }] of shown.entries()) {
      expect(up).toBe(rows[index]?.label);
      const distance = (check.logRatio[at] ?? Number.NaN) - check.kl;
      expect(u).toBeCloseTo(beta * (up ? distance : -distance), 5);
    }
    expect(await page.locator(".value-function").innerText()).toContain(`z0 = ${check.kl.toFixed(4)}`);
    await page.keyboard.press("ArrowRight");
    await page.locator("svg[aria-label*='update 2:']").waitFor();
    await page.keyboard.press("End");
    await page.locator("svg[aria-label*='update 12:']").waitFor();
  });

  test("rows that stand out have their texts and movement, and nothing of the texts runs", async () => {
    await showOnly("told ended");
    await open("Rows");
    const rows = page.getByRole("region", { name: "Rows that stand out" });
    await rows.waitFor();
    const [text, first] = [await rows.innerText(), rows.locator("li").first()];
    expect(text).toContain("Highest rewards, thumbs up");
    expect(text).toContain("Moved farthest");
    await rows.locator("summary", { hasText: "Moved farthest" }).focus();
    await page.keyboard.press("Enter");
    await expect.poll(() => rows.locator("details[open] li").count()).toBe(10);
    expect(text).toContain('<img src=x onerror="window.hacked=1">');
    expect(await rows.locator("img").count()).toBe(0);
    expect(await page.evaluate("window.hacked")).toBeUndefined();
    expect(await first.innerText()).toMatch(/row \d+\s+-?\d\.\d{3} → -?\d\.\d{3}, updates \d+ to \d+/);
  });

  test("rewards over the run, last numbers with intervals, memory, events; warnings alone by the keyboard", async () => {
    await open("Rewards");
    const spread = page.getByRole("region", { name: "Rewards over the run" });
    await spread.waitFor();
    expect(await spread.locator("svg[role=img]").count()).toBe(2);
    expect(await spread.locator("svg").first().getAttribute("aria-label")).toContain("updates 1 to 60");
    await open("Overview");
    const now = await page.getByRole("region", { name: "Now" }).innerText();
    expect(now).toMatch(/Win rate\s+72\.9%\s+95% interval 67\.1% to 77\.9%; 134 won, 105 even, 17 lost/);
    expect(now).toMatch(/Reference point z0\s+0\.0000\s+before the clamp -\d\.\d{4}/);
    expect(now).toMatch(/Device memory: 12 MiB[\s\S]*weights\s+6\.00 MiB/);
    await open("Events");
    const events = page.getByRole("region", { name: "Events and warnings" });
    expect(await events.innerText()).toContain("adapter: a software adapter");
    await events.getByRole("checkbox").focus();
    await page.keyboard.press("Space");
    expect(await events.locator("li").allInnerTexts()).toEqual([
      expect.stringMatching(/update 1 warning: <b>look<\/b>/),
    ]);
    expect(await runsList().innerText()).toContain("1 warning");
  });

  test("two runs side by side: in what their configurations differ, and a log scale for values of either sign", async () => {
    await box("told again").check();
    await open("Configuration");
    const configuration = page.getByRole("region", { name: "Configuration" });
    const differs = configuration.getByRole("region", { name: "What differs" });
    await expect.poll(() => differs.innerText()).toMatch(/learning_rate\s+0\.0005\s+0\.001/);
    expect(await differs.innerText()).not.toContain("beta");
    await open("Curves");
    await page.getByRole("checkbox", { name: "Log scale" }).focus();
    await page.keyboard.press("Space");
    expect(await figure("Rewards").locator("canvas").count()).toBe(1);
    await page.keyboard.press("Space");
    await box("told again").uncheck();
    await showOnly("trained");
  });

  test("the keyboard moves a curve's cursor and zooms, and new points leave the zoom as it is", async () => {
    const plot = figure("Loss").locator(".plot");
    await plot.focus();
    const cursor = () => figure("Loss").locator(".u-legend .u-series").first().innerText();
    for (let i = 0; i < 4; i++) await page.keyboard.press("ArrowLeft");
    expect(await cursor()).toContain("8");
    // What the eye sees in the legend is said too.
    const said = figure("Loss").locator("[aria-live]");
    await expect.poll(() => said.innerText()).toMatch(/^update 8, loss 0\.\d{4}$/);
    const range = () => figure("Loss").getAttribute("data-range");
    const whole = await range();
    await page.keyboard.press("+");
    await expect.poll(range).not.toBe(whole);
    const zoomed = await range();
    appendFileSync(join(trained, "metrics.jsonl"), '{"step":13,"loss":0.4}\n');
    await expect.poll(() => points("Loss")).toBe(13);
    expect(await range()).toBe(zoomed);
    await page.keyboard.press("Shift+ArrowLeft");
    await expect.poll(range).not.toBe(zoomed);
    await page.keyboard.press("0");
    await expect.poll(range).toBe("1 13");
    await expect.poll(() => said.innerText()).toBe("updates 1 to 13");
    // A range that is drawn with the mouse leaves what was chosen since the plot was made.
    const smoothing = page.getByRole("slider", { name: "Smoothing" });
    await smoothing.focus();
    await page.keyboard.press("ArrowRight");
    const over = figure("Loss").locator(".u-over");
    await over.scrollIntoViewIfNeeded();
    const { x = 0, y = 0, width = 0 } = (await over.boundingBox()) ?? {};
    await page.mouse.move(x + width / 4, y + 40);
    await page.mouse.down();
    await page.mouse.move(x + width / 2, y + 40, { steps: 4 });
    await page.mouse.up();
    await expect.poll(range).not.toBe("1 13");
    expect(await smoothing.inputValue()).toBe("0.02");
    await smoothing.focus();
    await page.keyboard.press("ArrowLeft");
    await plot.focus();
    await page.keyboard.press("0");
    await expect.poll(range).toBe("1 13");
    const line = figure("Loss").locator(".u-legend .u-series").nth(1);
    await page.keyboard.press("1");
    await expect.poll(() => line.getAttribute("class")).toContain("u-off");
    await page.keyboard.press("1");
    await expect.poll(() => line.getAttribute("class")).not.toContain("u-off");
  });

  test("tabs move by the keyboard, stay in the address, and a part asks for nothing that it does not show", async () => {
    const asked = new Set<string>();
    const note = (sent: Request) => asked.add(new URL(sent.url()).pathname.replace(/^\/api\/runs\/r\d+\//, ""));
    const shown = () => page.getByRole("tab", { selected: true }).innerText();
    for (const [key, title, part] of [
      ["Home", "Overview", "overview"],
      ["ArrowLeft", "Events", "events"],
      ["ArrowRight", "Overview", "overview"],
      ["End", "Events", "events"],
      ["ArrowLeft", "Configuration", "configuration"],
      ["ArrowLeft", "Curves", "curves"],
    ] as const) {
      await page.getByRole("tab", { selected: true }).focus();
      asked.clear();
      page.on("request", note);
      await page.keyboard.press(key);
      await expect.poll(shown).toBe(title);
      expect(new URL(page.url()).hash).toBe(`#${part}`);
      // What it knows of metrics is known in every part.
      const words: readonly string[] = PARTS[part].asks.filter((word) => word !== "metrics");
      await expect.poll(() => [...asked], { message: title }).toEqual(words);
      page.off("request", note);
    }
  });

  test("the first button leads past a long list of runs, which is searched by name, and a run that is removed leaves it", async () => {
    await showOnly("told ended");
    await showOnly("trained"); // chosen by now, so that it stays where others come
    await open("Curves");
    const many = Array.from({ length: 12 }, (_, i) => join(runs, `short ${i}`));
    for (const folder of many) {
      mkdirSync(folder);
      writeFileSync(join(folder, "metrics.jsonl"), '{"step":1,"loss":0.5}\n');
    }
    const search = page.getByRole("searchbox", { name: "Names with" });
    await search.fill("SHORT 11");
    // Beside what was looked for stands what is shown.
    await expect.poll(() => page.locator("nav li .name").allInnerTexts()).toEqual(["trained", "short 11"]);
    await page.reload();
    await search.waitFor();
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("tab-curves");
    await box("short 11").check();
    await showOnly("short 11");
    for (const folder of many) rmSync(folder, { recursive: true });
    await expect.poll(() => page.locator("nav li").count(), { timeout: 20_000 }).toBeLessThan(12);
    // All that were chosen are gone: it shows the last of the others.
    await expect.poll(() => page.locator("nav li input:checked").count()).toBe(1);
    await showOnly("trained");
  });

  test("a training that goes on is watched as its points arrive, beside another run", async () => {
    await showOnly("told ended");
    await showOnly("trained"); // chosen by now, so that it stays where another comes
    const going = kto(...words(join(runs, "going"), "--max_steps", "80"));
    await box("going").waitFor();
    await box("going").check();
    await expect.poll(() => points("Loss"), { timeout: 60_000 }).toBeGreaterThan(1);
    const { code, stderr } = await going;
    expect(code, stderr).toBe(0);
    await expect.poll(() => points("Loss"), { timeout: 30_000 }).toBe(80);
    await expect.poll(() => runsList().innerText()).toMatch(/going\s+ended, update 80/);
    expect(await figure("Loss").locator(".u-legend").innerText()).toMatch(/trained loss[\s\S]*going loss/);
  });

  test("it says that its server is away, and goes on when that is back", async () => {
    const { port } = server;
    await server.close();
    await page.getByText("The server is away").waitFor();
    await start(port);
    await expect.poll(() => page.getByRole("status").innerText(), { timeout: 30_000 }).toBe("");
  });

  test.each([
    ["light", 1280],
    ["dark", 1280],
    ["light", 390],
    ["dark", 390],
  ] as const)("in %s at %d pixels every part fits, and axe-core finds nothing serious", async (colorScheme, width) => {
    await box("told ended").check();
    await box("trained").setChecked(false);
    await box("told again").check();
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    await page.evaluate(axe);
    for (const [part, { title }] of Object.entries(PARTS)) {
      await open(title);
      await page
        .locator(AWAITED[part as PagePart])
        .first()
        .waitFor();
      const fit = () =>
        page.evaluate(() => ({
          wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
          clipped: [...document.querySelectorAll("figure, section:not(.scroll), nav, header, .tabs")]
            .filter((element) => element.scrollWidth > element.clientWidth + 1)
            .map((element) => element.outerHTML.slice(0, 100)),
          // Names in a legend that begin below their mark.
          torn: [...document.querySelectorAll(".u-series")].flatMap((row) => {
            const [mark, name] = [".u-marker", ".u-label"].map((part) => row.querySelector(part)?.getClientRects()[0]);
            return mark && name && name.top >= mark.bottom ? [row.textContent] : [];
          }),
        }));
      // Plots are drawn again for another width a moment later.
      await expect.poll(fit, { timeout: 30_000, message: part }).toEqual({ wide: 0, clipped: [], torn: [] });
      expect(await page.evaluate(() => document.documentElement.scrollHeight), part).toBeLessThan(7000);
      // A screen reader tells figures and tables by their names, which axe-core does not ask for.
      expect(await page.locator("figure:not([aria-label]), table:not([aria-label])").count(), part).toBe(0);
      // Each theme and each width once: it takes long.
      const isChecked = (colorScheme === "light") === (width === 1280);
      if (isChecked) expect(await seriousFaults(), part).toEqual([]);
      const path = join(pictureFolder(), `dashboard-${part}-${colorScheme}-${width}.png`);
      await page.screenshot({ path, fullPage: true });
    }
  });

  /** What axe-core finds that is serious. */
  const seriousFaults = () =>
    page.evaluate(async () => {
      const { violations } = await (
        globalThis as unknown as {
          axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }> };
        }
      ).axe.run();
      return violations
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .map(({ id, nodes }) => `${id}: ${nodes[0]?.html.slice(0, 120)}`);
    });
});
