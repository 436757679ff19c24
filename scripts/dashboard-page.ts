/**
 * The dashboard's page on a run of many updates, in Chromium: time until the server listens, until the page's first
 * paint, its first curve and, with every group of curves opened, its last one, memory of server and page, sizes of answers, 50 clients at once, and a server that is killed.
 *
 *   npx tsx scripts/dashboard-page.ts [--updates 100000] [--pages 5]
 *
 * Times are of this machine as it is; what else it does is in them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Page } from "playwright-core";
import { summary } from "../bench/measure/measure.ts";
import { commit } from "../src/engine/platform/node-commit.ts";
import { openChromium } from "../test/helpers/browser.ts";

const median = (numbers: readonly number[]) => summary(numbers).medianMs;

const { values } = parseArgs({
  options: { updates: { type: "string", default: "100000" }, pages: { type: "string", default: "5" } },
});
const [updates, pages] = [Number(values.updates), Number(values.pages)];
/** Metrics of a line, about as many as a run of KTO writes. */
const METRICS = 44;
const CLIENTS = 50;

const root = mkdtempSync(join(tmpdir(), "kto-dashboard-"));
const folder = join(root, "long");

async function writeRun(): Promise<void> {
  mkdirSync(folder);
  const names = Array.from({ length: METRICS - 6 }, (_, i) => `metric_${i}`);
  await writeLines("metrics.jsonl", updates, (step) => ({
    ...{
      step,
      loss: 1 + Math.sin(step / 900) / 9,
      "rewards/margins": step / updates,
      "rewards/chosen": -step / updates,
    },
    ...{ "rewards/rejected": (-2 * step) / updates, kl: 0, "kl/unclamped": -step / updates },
    ...Object.fromEntries(names.map((name, i) => [name, Math.cos(step / (100 + i)) + i])),
  }));
  const rows = Array.from({ length: 256 }, (_, i) => i);
  await writeLines("examples.jsonl", 1000, (at) => {
    const index = rows.map((row) => (at * 256 + row) % 20_000);
    const ratios = index.map((row) => Number(((-5 * at) / 1000 + Math.sin(row)).toPrecision(7)));
    return {
      ...{ step: at * Math.ceil(updates / 1000), beta: 0.1, desirable_weight: 2, undesirable_weight: 1, rows: 256 },
      ...{ z0: [0], z0_unclamped: [-0.1], pairs: [256], index, label: index.map((row) => row % 3 === 0) },
      ...{ group: rows.map(() => 0), log_ratio: ratios, u: ratios.map((r) => r / 10) },
      ...{ v: ratios.map((r) => 1 / (1 + Math.exp(-r / 10))), saturated: rows.map(() => false) },
    };
  });
  await writeLines("rows.jsonl", 20_000, (at) => {
    const prompt = "Once upon a time ".repeat(8);
    return { step: 1, index: at - 1, label: at % 3 === 1, prompt, completion: " there was a cat.".repeat(20) };
  });
}

async function writeLines(name: string, count: number, lineOf: (at: number) => unknown): Promise<void> {
  const stream = createWriteStream(join(folder, name));
  for (let at = 1; at <= count; at++) {
    if (!stream.write(`${JSON.stringify(lineOf(at))}\n`)) await once(stream, "drain");
  }
  stream.end();
  await once(stream, "close");
}

/** Starts `kto dashboard`. */
async function serve(port: number): Promise<{ child: ChildProcess; address: string; ms: number }> {
  const start = performance.now();
  const words = ["bin/kto.js", "dashboard", root, "--port", String(port), "--json"];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  if (child.stdout === null) throw new Error("the server has no stdout");
  const [told] = (await once(child.stdout, "data")) as [Buffer];
  const { address } = JSON.parse(told.toString()) as { address: string };
  return { child, address, ms: performance.now() - start };
}

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

function residentOf({ pid }: ChildProcess): string {
  const [, kib = "0"] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return mebibytes(Number(kib) * 1024);
}

/** Milliseconds: from the navigation to paint and first curve, from the tab to all curves; the page's heap in bytes. */
async function paint(page: Page, address: string) {
  const start = performance.now();
  await page.goto(address);
  await page.locator("figure .uplot").first().waitFor();
  const curve = performance.now() - start;
  const opened = performance.now();
  await page.getByRole("tab", { name: "Curves", exact: true }).click();
  const closed = page.locator("details.group:not([open]) > summary");
  while ((await closed.count()) > 0) await closed.first().click();
  await page.waitForFunction(`document.querySelectorAll("figure .uplot").length >= ${METRICS - 6}`);
  const all = performance.now() - opened;
  const first = await page.evaluate(
    () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? Number.NaN,
  );
  const points = Number(await page.locator("figure[data-points]").first().getAttribute("data-points"));
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  return { first, curve, all, heap: usedSize, points };
}

async function main(): Promise<void> {
  await writeRun();
  const bytes = ["metrics.jsonl", "examples.jsonl", "rows.jsonl"].map((name) => statSync(join(folder, name)).size);
  console.log(`kto dashboard and its page in Chromium, commit ${commit()}, Node ${process.versions.node}`);
  console.log(`${cpus().length} cores, ${cpus()[0]?.model.trim()}`);
  console.log(
    `a run of ${updates} logged updates, ${METRICS} numbers each; files of ${bytes.map(mebibytes).join(", ")}`,
  );
  let server = await serve(0);
  console.log(`server: listens after ${server.ms.toFixed(0)} ms, the whole run read; peak ${residentOf(server.child)}`);
  const browser = await openChromium();
  const painted: Awaited<ReturnType<typeof paint>>[] = [];
  for (let i = 0; i < pages; i++) {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: "en-US" });
    painted.push(await paint(page, server.address));
    await page.close();
  }
  const of = (pick: (one: (typeof painted)[number]) => number) => median(painted.map(pick)).toFixed(0);
  const most = Math.max(...painted.map(({ first }) => first)).toFixed(0);
  console.log(
    `page: first paint after ${of(({ first }) => first)} ms (most ${most}), first curve ${of(({ curve }) => curve)} ms, all curves ${of(({ all }) => all)} ms after their tab was chosen; medians of ${pages} pages`,
  );
  console.log(
    `page: heap ${mebibytes(Math.max(...painted.map(({ heap }) => heap)))}, ${painted[0]?.points} points a curve`,
  );

  const what = ["metrics", "rewards", "rows", "examples", "events"];
  const sizes = await Promise.all(
    what.map(async (name) => (await (await fetch(`${server.address}api/runs/r0/${name}`)).arrayBuffer()).byteLength),
  );
  console.log(`answers: ${what.map((name, i) => `${name} ${((sizes[i] ?? 0) / 1000).toFixed(0)} kB`).join(", ")}`);
  const start = performance.now();
  await Promise.all(
    Array.from(
      { length: CLIENTS },
      async () => await (await fetch(`${server.address}api/runs/r0/metrics`)).arrayBuffer(),
    ),
  );
  console.log(
    `${CLIENTS} clients at once have the metrics after ${(performance.now() - start).toFixed(0)} ms; server's peak ${residentOf(server.child)}`,
  );

  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: "en-US" });
  await paint(page, server.address);
  server.child.kill("SIGKILL");
  await page.getByText("The server is away").waitFor();
  const killed = performance.now();
  server = await serve(Number(new URL(server.address).port));
  await page.locator("[role=status]:empty").waitFor({ state: "attached" });
  console.log(
    `server killed and started again: the page goes on ${(performance.now() - killed - server.ms).toFixed(0)} ms after it listens`,
  );
  await browser.close();
  server.child.kill("SIGINT");
  await once(server.child, "close");
}

try {
  await main();
} finally {
  rmSync(root, { recursive: true, force: true });
}
