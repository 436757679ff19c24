/**
 * The dashboard's server: what it answers and refuses, news of a run that goes on, many clients, long runs. It is asked
 * by plain requests, whose headers and paths are sent as they stand.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { get, type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { main } from "../../../src/cli/main.ts";
import { DashboardServer } from "../../../src/cli/server/dashboard-server.ts";
import { RunDashboard, withRunDashboard } from "../../../src/cli/server/run-dashboard.ts";
import { Output } from "../../../src/cli/terminal/output.ts";
import type {
  ExampleLine,
  MetricsAnswer,
  RewardsAnswer,
  RowsAnswer,
  RunSummary,
} from "../../../src/dashboard/protocol.ts";
import { builtModule } from "../../helpers/built.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { fixtures, freshPath, temporaryFolder } from "../../helpers/folders.ts";
import { CapturedStream, kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
const secret = join(folder, "secret.txt");
const runs = join(folder, "runs");
const growing = join(runs, "growing");
const page = new Map([["/", { type: "text/html; charset=utf-8", content: "the page" }]]);
const warnings: string[] = [];
let server: DashboardServer;

const metricsLine = (step: number) =>
  `${JSON.stringify({ step, loss: 0.5 - step / 1e6, "rewards/margins": step / 1000, kl: null })}\n`;
const exampleLine = (step: number): ExampleLine => ({
  ...{ step, beta: 0.1, desirable_weight: 1, undesirable_weight: 1, rows: 2, z0: [0.25], z0_unclamped: [0.25] },
  ...{ pairs: [2], index: [0, 1], label: [true, false], group: [0, 0], log_ratio: [1, -1], u: [0.075, 0.125] },
  ...{ v: [0.519, 0.531], saturated: [false, false] },
});

beforeAll(async () => {
  writeFileSync(secret, "secret");
  mkdirSync(growing, { recursive: true });
  writeFileSync(join(growing, "metrics.jsonl"), metricsLine(1) + metricsLine(2));
  writeFileSync(join(growing, "examples.jsonl"), `${JSON.stringify(exampleLine(2))}\n{"step":3,"beta":0.1,`);
  mkdirSync(join(runs, "no run"));
  server = await DashboardServer.start({ folders: [runs], port: 0, page, onWarning: (text) => warnings.push(text) });
});

afterAll(async () => {
  await server.close();
  expect(warnings).toEqual([]);
});

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** A request with this very path and these headers. */
function ask(path: string, headers: Record<string, string> = {}, method = "GET"): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port: server.port, path, headers, method }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (text: string) => {
        body += text;
      });
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    sent.on("error", reject);
    sent.end();
  });
}

async function json<T>(path: string): Promise<T> {
  const { status, body } = await ask(path);
  expect(status, body).toBe(200);
  return JSON.parse(body) as T;
}

describe("answers", () => {
  test("the page with headers that keep it to itself", async () => {
    const { status, headers, body } = await ask("/");
    expect([status, body]).toEqual([200, "the page"]);
    const policy = headers["content-security-policy"] ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toMatch(/unsafe|\*|https?:/);
    expect(headers["x-content-type-options"]).toBe("nosniff");
    expect(headers["access-control-allow-origin"]).toBeUndefined();
  });

  test("the runs among the folders, and a run's metrics and examples", async () => {
    const [run, ...others] = await json<RunSummary[]>("/api/runs");
    expect(others).toEqual([]);
    expect(run).toMatchObject({ name: "growing", running: false, lines: 2, step: 2 });
    const metrics = await json<MetricsAnswer>(`/api/runs/${run?.id}/metrics`);
    expect(metrics.series.loss).toEqual({ steps: [1, 2], values: [0.499999, 0.499998] });
    expect(metrics.series.kl).toBeUndefined();
    expect([metrics.lines, metrics.from]).toEqual([2, 0]);
    // Whoever has the first line is sent the second alone; of another file, or of more lines than there are, all come.
    const since = (lines: number, generation: number) =>
      json<MetricsAnswer>(`/api/runs/${run?.id}/metrics?from=${lines}&generation=${generation}`);
    expect(await since(1, metrics.generation)).toMatchObject({ from: 1, series: { loss: { steps: [2] } } });
    expect(await since(2, metrics.generation)).toMatchObject({ lines: 2, from: 2, series: {} });
    for (const other of [await since(1, metrics.generation + 1), await since(3, metrics.generation)]) {
      expect(other).toEqual(metrics);
    }
    // The second line is not whole yet.
    expect(run).toMatchObject({ examples: 1, samples: 0 });
    expect(await json(`/api/runs/${run?.id}/examples`)).toEqual({ steps: [2] });
    expect(await json(`/api/runs/${run?.id}/examples/2`)).toEqual(exampleLine(2));
  });
});

test("samples of the first and the last update, of texts and chats", async () => {
  const line = (step: number, index: number, prompt: unknown) =>
    `${JSON.stringify({ step, index, prompt, completion: `${step} ${index}` })}\n`;
  const chat = { messages: [{ role: "user", content: "Hi" }] };
  const all = [0, 4, 8].flatMap((step) => [line(step, 0, "One day"), line(step, 1, chat)]);
  writeFileSync(join(growing, "samples.jsonl"), all.join(""));
  expect(await json("/api/runs/r0/samples")).toEqual({
    ...{ first: 0, last: 8 },
    samples: [
      { index: 0, prompt: "One day", first: "0 0", last: "8 0" },
      { index: 1, prompt: "user: Hi", first: "0 1", last: "8 1" },
    ],
  });
});

test("rewards over the run, rows that stand out with their texts, events and configuration; half a line of each waits", async () => {
  const told = join(runs, "told");
  mkdirSync(told);
  writeFileSync(join(told, "metrics.jsonl"), metricsLine(2));
  writeFileSync(join(told, "examples.jsonl"), `${JSON.stringify(exampleLine(2))}\n{"step":4,"be`);
  const row = { step: 2, index: 1, label: false, prompt: "Say", completion: " <b>no</b>" };
  writeFileSync(join(told, "rows.jsonl"), `${JSON.stringify(row)}\n{"step":2,"index":0,"lab`);
  const event = { step: 1, time: "2026-11-30T22:00:00.000Z", level: "warning", text: "look" };
  writeFileSync(join(told, "events.jsonl"), `${JSON.stringify(event)}\n{"step":2,"ti`);
  const found = (await json<RunSummary[]>("/api/runs")).find(({ name }) => name === "told");
  expect(found).toMatchObject({ events: 1, warnings: 1 });
  const of = <T>(what: string) => json<T>(`/api/runs/${found?.id}/${what}`);
  const rewards = await of<RewardsAnswer>("rewards");
  expect([rewards.low, rewards.high, rewards.upMedian, rewards.downMedian]).toEqual([-0.1, 0.1, [0.1], [-0.1]]);
  const rows = await of<RowsAnswer>("rows");
  expect(rows.rows).toBe(2);
  expect(rows.groups.map(({ kind, label, rows: some }) => [kind, label, some.map(({ text }) => text)])).toEqual([
    ["highest", true, [undefined]],
    ["lowest", true, [undefined]],
    ["highest", false, [{ prompt: "Say", completion: " <b>no</b>" }]],
    ["lowest", false, [{ prompt: "Say", completion: " <b>no</b>" }]],
  ]);
  expect(await of("events")).toEqual({ count: 1, events: [event] });
  expect(await of("facts")).toEqual({});
  const more = { ...exampleLine(4), log_ratio: [3, -3] };
  writeFileSync(join(told, "examples.jsonl"), `${JSON.stringify(exampleLine(2))}\n${JSON.stringify(more)}\n`);
  expect((await of<RewardsAnswer>("rewards")).to).toEqual([2, 4]);
  expect((await of<RowsAnswer>("rows")).groups.at(-1)).toMatchObject({ kind: "moved", rows: [{}, {}] });
  // Of a run without examples.
  const [other] = await json<RunSummary[]>("/api/runs").then((all) => all.filter(({ name }) => name === "growing"));
  expect(await json(`/api/runs/${other?.id}/events`)).toEqual({ count: 0, events: [] });
});

describe("refuses", () => {
  test.each([
    ["another host", { host: "evil.example" }],
    ["this port under a name that was made to point here", { host: "rebound.example:80" }],
    ["another page", { origin: "https://evil.example" }],
    ["a page without an origin", { origin: "null" }],
    ["a request that a browser says comes from elsewhere", { "sec-fetch-site": "cross-site" }],
  ])("%s", async (_, headers) => {
    const host = { host: `127.0.0.1:${server.port}` };
    for (const path of ["/", "/api/runs", "/api/events"]) {
      expect((await ask(path, { ...host, ...headers })).status).toBe(403);
    }
  });

  test("its own page's requests are not among them", async () => {
    for (const name of ["127.0.0.1", "localhost"]) {
      const own = { host: `${name}:${server.port}`, origin: `http://${name}:${server.port}` };
      expect((await ask("/api/runs", { ...own, "sec-fetch-site": "same-origin" })).status).toBe(200);
    }
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS"])("%s", async (method) => {
    expect((await ask("/api/runs", {}, method)).status).toBe(405);
  });

  test.each([
    ...["/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/api/runs/../../secret.txt", "//secret.txt"],
    ...["/api/runs/r0/../../../secret.txt", "/api/runs/..%2f..%2fsecret.txt/metrics", "/api/runs/r99/metrics"],
    ...["/api/runs/r0/rows/1", "/api/runs/r0/hasOwnProperty", "/api/runs/r0/constructor", "/api/runs/r0/run.json"],
    ...["/api/runs/r0/metrics/1", "/api/runs/r0/examples/7", "/api/runs/r0/trainer_state.json", "/metrics.jsonl"],
    ...["/api/runs/__proto__/metrics", "/api/runs/constructor/metrics", "/etc/passwd"],
  ])("%s", async (path) => {
    const { status, body } = await ask(path);
    expect(status).toBe(404);
    expect(body).not.toContain("secret");
  });
});

/** The lists of runs that come as events, until `enough`. */
function listsUntil(enough: (runs: readonly RunSummary[]) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = get({ host: "127.0.0.1", port: server.port, path: "/api/events" }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (piece: string) => {
        text += piece;
        const events = text.split("\n\n");
        text = events.pop() ?? "";
        for (const event of events) {
          const data = /^data: (.*)$/m.exec(event)?.[1];
          if (data === undefined || !enough(JSON.parse(data) as RunSummary[])) continue;
          stream.destroy();
          resolve();
        }
      });
    });
    stream.on("error", reject);
  });
}

test("news come by themselves: points, a run that is new, one that was started again; to 50 clients at once", async () => {
  const reach = (wanted: (run: RunSummary) => boolean) =>
    Promise.all(Array.from({ length: 50 }, () => listsUntil((found) => found.some(wanted))));
  const grown = reach(({ name, lines }) => name === "growing" && lines === 3);
  appendFileSync(join(growing, "metrics.jsonl"), metricsLine(3));
  await grown;
  mkdirSync(join(runs, "another"));
  writeFileSync(join(runs, "another", "metrics.jsonl"), metricsLine(1));
  await listsUntil((found) => found.some(({ name }) => name === "another"));
  const again = listsUntil((found) => found.some(({ name, lines }) => name === "growing" && lines === 1));
  writeFileSync(join(growing, "metrics.jsonl"), metricsLine(1));
  await again;
});

test("a run that is removed leaves the list, and its number is not given again", async () => {
  const removed = join(runs, "removed");
  const make = () => {
    mkdirSync(removed);
    writeFileSync(join(removed, "metrics.jsonl"), metricsLine(1));
  };
  const named = async () => (await json<RunSummary[]>("/api/runs")).filter(({ name }) => name === "removed");
  make();
  const [before, ...others] = await named();
  expect([before?.step, others]).toEqual([1, []]);
  rmSync(removed, { recursive: true });
  expect(await named()).toEqual([]);
  expect((await ask(`/api/runs/${before?.id}/metrics`)).status).toBe(404);
  make();
  const [after] = await named();
  expect(after?.id).not.toBe(before?.id);
  rmSync(removed, { recursive: true });
});

test.runIf(process.platform !== "win32")("what cannot be read hides nothing else: it is named", async () => {
  const hidden = join(runs, "hidden");
  mkdirSync(hidden);
  symlinkSync(join(runs, "loop"), join(runs, "loop")); // no folder that can be looked into
  writeFileSync(join(hidden, "metrics.jsonl"), metricsLine(1));
  execFileSync("mkfifo", [join(hidden, "examples.jsonl")]);
  const told = async () => (await json<RunSummary[]>("/api/runs")).find(({ name }) => name === "hidden");
  const fault = `Cannot open ${join(hidden, "examples.jsonl")}: it is no regular file.`;
  expect(await told()).toMatchObject({ step: 1, fault });
  appendFileSync(join(hidden, "metrics.jsonl"), metricsLine(2));
  expect(await told()).toMatchObject({ step: 2, fault });
  rmSync(join(hidden, "examples.jsonl"));
  writeFileSync(join(hidden, "examples.jsonl"), `${JSON.stringify(exampleLine(2))}\n`);
  const after = await told();
  expect([after?.examples, after?.fault]).toEqual([1, undefined]);
  rmSync(join(runs, "loop"));
  rmSync(hidden, { recursive: true });
});

test("lines that no run writes are passed over: NaN, nulls, half a number, other JSON, a line of megabytes", async () => {
  const odd = join(runs, "odd");
  mkdirSync(odd);
  const long = `{"step":2,"loss":${"1".repeat(2 ** 23)}}\n`;
  const no = ['{"step":2,"loss":NaN}', '{"step":2,"loss":', "null", "[1]", '"step"', '{"step":null,"loss":2}', ""];
  writeFileSync(
    join(odd, "metrics.jsonl"),
    `${metricsLine(1)}${no.join("\n")}\n${long}${metricsLine(3)}{"step":4,"loss":null,"__proto__":1}\n`,
  );
  const run = (await json<RunSummary[]>("/api/runs")).find(({ name }) => name === "odd");
  expect(run).toMatchObject({ lines: 3, step: 4 });
  const { series } = await json<MetricsAnswer>(`/api/runs/${run?.id}/metrics`);
  expect(series.loss?.steps).toEqual([1, 3]);
  rmSync(odd, { recursive: true });
});

test("of more runs than are shown it says so, and shows the first", async () => {
  const many = join(folder, "many");
  for (let i = 0; i <= 500; i++) {
    mkdirSync(join(many, String(1000 + i)), { recursive: true });
    writeFileSync(join(many, String(1000 + i), "metrics.jsonl"), metricsLine(i));
  }
  const said: string[] = [];
  const read: number[] = [];
  const other = await DashboardServer.start(
    { folders: [many], port: 0, page, onWarning: (text) => said.push(text) },
    (done) => read.push(done),
  );
  await other.close();
  expect([other.runs.length, other.runs[0]?.name, read.at(-1)]).toEqual([500, "1000", 500]);
  expect(said).toEqual([expect.stringContaining("shows at most 500 runs, the first ones by their names")]);
});

test("a run of 100,000 updates comes in few points", async () => {
  const long = join(runs, "long");
  mkdirSync(long);
  writeFileSync(join(long, "metrics.jsonl"), Array.from({ length: 100_000 }, (_, i) => metricsLine(i + 1)).join(""));
  const found = await json<RunSummary[]>("/api/runs");
  const run = found.find(({ name }) => name === "long");
  expect(run).toMatchObject({ lines: 100_000, step: 100_000 });
  const { body } = await ask(`/api/runs/${run?.id}/metrics`);
  expect(body.length).toBeLessThan(200_000);
  const { series } = JSON.parse(body) as MetricsAnswer;
  expect(series.loss?.steps.length).toBeLessThanOrEqual(2000);
  expect(series.loss?.steps.at(-1)).toBe(100_000);
});

test("kto dashboard serves the page that was built until Ctrl-C, which is its end and no error", async () => {
  const child = spawn(process.execPath, ["bin/kto.js", "dashboard", runs, "--port", "0", "--json"], { stdio: "pipe" });
  const ended = once(child, "close");
  const [told] = (await once(child.stdout, "data")) as [Buffer];
  const { address, runs: count } = JSON.parse(told.toString()) as { address: string; runs: number };
  expect(address).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
  expect(count).toBeGreaterThan(0);
  const [html, script, style] = await Promise.all(
    ["", "app.js", "app.css"].map(async (name) => await (await fetch(address + name)).text()),
  );
  expect(html).toContain('<script type="module" src="/app.js">');
  expect(html).not.toMatch(/<script[^>]*>[^<]|style=|https?:/);
  expect(script?.length).toBeGreaterThan(10_000);
  expect((script?.length ?? 0) + (style?.length ?? 0)).toBeLessThan(110_000); // as docs/dashboard.md says
  expect(style).toContain("prefers-color-scheme");
  child.kill("SIGINT");
  expect((await ended)[0]).toBe(0);
});

test("kto dashboard of a folder without runs says what a run is, and where it looks", async () => {
  const empty = freshPath(folder, "empty");
  mkdirSync(empty);
  const child = spawn(process.execPath, ["bin/kto.js", "dashboard", empty, "--port", "0"], { stdio: "pipe" });
  const ended = once(child, "close");
  const [warned] = (await once(child.stderr, "data")) as [Buffer];
  child.kill("SIGINT");
  expect((await ended)[0]).toBe(0);
  expect(warned.toString()).toContain(`There is no run in ${empty}: a run is a folder with metrics.jsonl, which `);
});

describe("kto train --dashboard", () => {
  const words = (output: string, port: number) => [
    ...["train", "--model_name_or_path", `${fixtures}/llama/policy`, "--dataset_name", `${fixtures}/llama/data.jsonl`],
    ...["--output_dir", output, "--max_steps", "60", "--logging_steps", "1", "--save_strategy", "no"],
    ...["--dashboard", "--dashboard_port", String(port)],
  ];

  test("says an address where the run can be watched, another one where the port is taken, and ends with the run", async () => {
    builtModule("index"); // and with it the page
    const output = join(folder, "watched");
    const [stdout, stderr] = [new CapturedStream(), new CapturedStream()];
    const run = main(words(output, server.port), { stdout, stderr });
    const address = () => /^dashboard: (http:\/\/127\.0\.0\.1:\d+\/)$/m.exec(stderr.text)?.[1];
    await expect.poll(address, { timeout: 60_000 }).toBeDefined();
    const at = address() ?? "";
    expect(at).not.toBe(server.address);
    // In one answer: the run may end before the next one.
    const seen = async () => {
      const response = await fetch(`${at}api/runs`);
      const [watched] = (await response.json()) as RunSummary[];
      return {
        ...watched,
        isLogged: (watched?.lines ?? 0) > 0,
        policy: response.headers.get("content-security-policy"),
      };
    };
    await expect.poll(seen, { timeout: 60_000 }).toMatchObject({
      name: "watched",
      running: true,
      isLogged: true,
      policy: expect.stringContaining("default-src"),
    });
    expect(await run, stderr.text).toBe(0);
    expect(stderr.text).toContain(`the dashboard has ended with the run; kto dashboard ${output} shows it again`);
    await expect(fetch(at)).rejects.toThrow();
  });

  test("with --quiet it is silent, but for another port than was asked for", async () => {
    const said = async (port: number) => {
      const [stdout, stderr] = [new CapturedStream(), new CapturedStream()];
      const output = new Output({ stdout, stderr }, { json: false, log_level: "info", quiet: true });
      const config = { output_dir: folder, dashboard: true, dashboard_port: port, dry_run: false };
      await withRunDashboard(config, output, async () => undefined);
      return stderr.text;
    };
    const free = await DashboardServer.start({ folders: [], port: 0, page, onWarning: () => undefined });
    const { port } = free;
    await free.close();
    expect(await said(port)).toBe("");
    expect(await said(server.port)).toMatch(
      /^warning: the dashboard is at http:\/\/127\.0\.0\.1:\d+\/, since port \d+ is taken\.\n$/,
    );
  });

  test("a dashboard that cannot begin is a warning, and the run goes on", async () => {
    const warnings: string[] = [];
    vi.spyOn(Worker.prototype, "postMessage").mockImplementation(() => {
      throw new Error("no thread");
    });
    const started = await RunDashboard.start({ folder, port: 0, onWarning: (text) => warnings.push(text) });
    vi.restoreAllMocks();
    expect(started).toBeUndefined();
    expect(warnings).toEqual(["The dashboard cannot be started: no thread. The training goes on without it."]);
  });
});

describe("kto dashboard ends in a sentence", () => {
  const file = join(folder, "secret.txt");

  test.each([
    ["a folder that is not there", [runs, join(folder, "nowhere")], `There is no folder ${join(folder, "nowhere")}.`],
    ["a file", [file], `${file} is a file; kto dashboard takes output folders of runs, or folders that hold some.`],
  ])("for %s", async (_, folders, sentence) => {
    const { code, stderr } = await kto("dashboard", ...folders);
    expect([code, stderr]).toEqual([7, expect.stringContaining(sentence)]);
  });

  test("for a port that is taken", async () => {
    const { code, stderr } = await kto("dashboard", runs, "--port", String(server.port));
    const sentence = `Port ${server.port} is taken, perhaps by another dashboard: choose another one, or 0 for any that is free.`;
    expect([code, stderr]).toEqual([7, expect.stringContaining(sentence)]);
  });
});
