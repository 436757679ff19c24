/**
 * What a training run pays while somebody watches its dashboard. One run with `--dashboard`, of which every update has the
 * same 8 rows and so the same work; a watcher comes and goes in blocks of updates (A B B A), so that a machine that gets
 * slower or faster meets both kinds alike. Of each block the mean time of an update, and the processor time of each of the
 * run's threads; of each pair of neighbours the ratio; over all pairs the mean with Student's 95% interval.
 *
 *   npx tsx scripts/dashboard-cost.ts [--seconds 180] [--updates 20] [--settle 5] [--part overview]
 *                                     [--browser] [--watchers 1] [--shared]
 *
 * A watcher reads what an open page reads, by the same code; `--browser` opens the page itself in Chromium. Neither is the
 * run's own work, so the run has one core for all of its threads and the watcher the other one: a software adapter, held
 * to one thread, then stands for a GPU that a browser does not slow down. `--shared` gives all cores to all, where a
 * browser that draws by software takes what the software adapter computes with. The first updates of a block are left
 * out (`--settle`): who has just come reads all that there is, once. Linux only. Exit code 1 where the whole interval
 * lies above 2%.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type ClientRequest, get, type IncomingMessage } from "node:http";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { answerState, metricsPath, PARTS, type PagePart, withNews } from "../src/dashboard/page/asking.ts";
import type { ExamplesAnswer, MetricsAnswer, RunSummary } from "../src/dashboard/protocol.ts";
import { commit } from "../src/engine/platform/node-commit.ts";
import { meanInterval } from "../src/kto/report/statistics.ts";
import { openChromium } from "../test/helpers/browser.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "180" },
    updates: { type: "string", default: "20" },
    settle: { type: "string", default: "5" },
    watchers: { type: "string", default: "1" },
    part: { type: "string", default: "overview" },
    browser: { type: "boolean", default: false },
    shared: { type: "boolean", default: false },
  },
});
const part = Object.keys(PARTS).find((name): name is PagePart => name === values.part);
if (part === undefined) throw new Error(`--part is one of ${Object.keys(PARTS).join(", ")}.`);
const asks: (typeof PARTS)[PagePart]["asks"] = PARTS[part].asks;
const [seconds, updates, settle] = [Number(values.seconds), Number(values.updates), Number(values.settle)];
if (!(settle < updates)) throw new Error("--settle must be less than --updates.");
/** What the run may lose, as a share of its time. */
const LIMIT = 0.02;
/** Updates before the first block: kernels are compiled, and the files have begun. */
const WARM_UP = 20;
/** The run's, and the watcher's. */
const CORES = ["0", "1"] as const;
/** Of the dashboard's thread, by which it is known (dashboard-worker.ts). */
const NICENESS = "10";

const root = mkdtempSync(join(tmpdir(), "kto-dashboard-cost-"));
const output = join(root, "run");
/** Runs in the training's process: tells of each line of metrics.jsonl as it is written, and when. */
const meter = `data:text/javascript,${encodeURIComponent(`
import { promises } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
const append = promises.appendFile;
promises.appendFile = async (path, ...rest) => {
  const result = await append(path, ...rest);
  if (String(path).endsWith("metrics.jsonl")) process.send(performance.now());
  return result;
};
syncBuiltinESMExports();
`)}`;

/** Processor time in milliseconds. */
interface Processor {
  /** Of the thread that trains, of the dashboard's, and of all others: the adapter's and Node's helpers. */
  readonly main: number;
  readonly dashboard: number;
  readonly others: number;
}

/** The end of an update. */
interface Mark {
  /** By the run's own clock, in milliseconds. */
  readonly at: number;
  readonly processor: Processor;
}

/** What an update took on the mean, in milliseconds. */
interface Block extends Processor {
  readonly watched: boolean;
  readonly wall: number;
}

/** Of a process by now; Linux. */
function processorOf(pid: number): Processor {
  const times = { main: 0, dashboard: 0, others: 0 };
  for (const id of readdirSync(`/proc/${pid}/task`)) {
    const folder = `/proc/${pid}/task/${id}`;
    const [ran = "0"] = readFileSync(`${folder}/schedstat`, "utf8").split(" ");
    const stat = readFileSync(`${folder}/stat`, "utf8");
    const niceness = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16];
    const whose = id === String(pid) ? "main" : niceness === NICENESS ? "dashboard" : "others";
    times[whose] += Number(ran) / 1e6;
  }
  return times;
}

const told = { news: 0, bytes: 0 };

/** Follows the news of a server and asks for what is new, as a page with one part open does; errors are its end. */
class Watcher {
  readonly #address: string;
  readonly #states = new Map<string, string>();
  readonly #stream: ClientRequest;
  #metrics: MetricsAnswer | undefined;

  constructor(address: string) {
    this.#address = address;
    this.#stream = get(`${address}api/events`, (response: IncomingMessage) => {
      let rest = "";
      response.setEncoding("utf8").on("error", () => undefined);
      response.on("data", (text: string) => {
        const events = (rest + text).split("\n\n");
        rest = events.pop() ?? "";
        for (const event of events) {
          const data = /^data: (.*)$/m.exec(event)?.[1];
          const [run] = data === undefined ? [] : (JSON.parse(data) as RunSummary[]);
          if (run === undefined) continue;
          told.news++;
          this.#ask(run).catch(() => undefined); // the run has ended
        }
      });
    });
    this.#stream.on("error", () => undefined);
  }

  close(): void {
    this.#stream.destroy();
  }

  async #ask(run: RunSummary): Promise<void> {
    for (const word of asks) {
      const state = answerState(word, run);
      if (this.#states.get(word) === state) continue;
      this.#states.set(word, state);
      if (word === "metrics") {
        const answer = await this.#get<MetricsAnswer>(metricsPath(run.id, this.#metrics));
        this.#metrics = withNews(this.#metrics, answer);
        continue;
      }
      const answer = await this.#get(`/api/runs/${run.id}/${word}`);
      const last = word === "examples" ? (answer as ExamplesAnswer).steps.at(-1) : undefined;
      if (last !== undefined) await this.#get(`/api/runs/${run.id}/examples/${last}`);
    }
  }

  async #get<T>(path: string): Promise<T> {
    const text = await (await fetch(new URL(path, this.#address))).text();
    told.bytes += text.length;
    return JSON.parse(text) as T;
  }
}

interface Audience {
  come(): Promise<void> | void;
  go(): Promise<void> | void;
  end(): Promise<void> | void;
}

function readers(address: string): Audience {
  let watchers: Watcher[] = [];
  const go = () => {
    for (const watcher of watchers) watcher.close();
    watchers = [];
  };
  const come = () => {
    watchers = Array.from({ length: Number(values.watchers) }, () => new Watcher(address));
  };
  return { come, go, end: go };
}

async function chromium(address: string): Promise<Audience> {
  const browser = await openChromium();
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: "en-US" });
  return {
    come: async () => void (await page.goto(`${address}#${part}`)),
    go: async () => void (await page.goto("about:blank")),
    end: () => browser.close(),
  };
}

/** Eight rows, half of them thumbs up: one update's, and the whole feedback. */
function writeFeedback(): string {
  const lines = readFileSync("examples/quickstart/feedback.jsonl", "utf8").trim().split("\n");
  const of = (label: boolean) => lines.filter((line) => JSON.parse(line).label === label).slice(0, 4);
  const path = join(root, "feedback.jsonl");
  writeFileSync(path, [...of(true), ...of(false), ""].join("\n"));
  return path;
}

function startRun(): ChildProcess {
  const words = [
    ...["train", "--model_name_or_path", "examples/quickstart/model", "--output_dir", output],
    ...["--dataset_name", writeFeedback(), "--per_device_train_batch_size", "8", "--learning_rate", "1e-5"],
    ...["--max_steps", "1000000", "--logging_steps", "1", "--save_strategy", "no"],
    ...["--dashboard", "--dashboard_port", "0"],
  ];
  const command = [process.execPath, "--import", meter, "bin/kto.js", ...words];
  const [program = "", ...rest] = values.shared ? command : ["taskset", "-c", CORES[0], ...command];
  const env = { ...process.env, ...(values.shared ? {} : { LP_NUM_THREADS: "1" }) };
  return spawn(program, rest, { env, stdio: ["ignore", "ignore", "pipe", "ipc"] });
}

async function main(): Promise<void> {
  // All threads of this process, and what it starts from now on.
  if (!values.shared) execFileSync("taskset", ["-apc", CORES[1], String(process.pid)]);
  const child = startRun();
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = once(child, "close");
  const marks: Mark[] = [];
  let wake = (): void => undefined;
  child.on("message", (at: number) => {
    if (child.pid !== undefined) marks.push({ at, processor: processorOf(child.pid) });
    wake();
  });
  child.on("close", () => wake());
  /** The end of the update of this number, from 1, once it is there. */
  const update = async (number: number): Promise<Mark> => {
    for (;;) {
      const mark = marks[number - 1];
      if (mark !== undefined) return mark;
      if (child.exitCode !== null) throw new Error(`the run ended: ${stderr}`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  const blocks: Block[] = [];
  let audience: Audience | undefined;
  try {
    await update(WARM_UP);
    const address = /^dashboard: (\S+)$/m.exec(stderr)?.[1];
    if (address === undefined) throw new Error(`the run has no dashboard: ${stderr}`);
    audience = values.browser ? await chromium(address) : readers(address);
    const who = values.browser ? "the page in Chromium" : `${values.watchers} that read as the page does`;
    const where = values.shared
      ? "all threads on all cores"
      : `the run on core ${CORES[0]} with LP_NUM_THREADS=1, who watches on core ${CORES[1]}`;
    console.log(
      `kto train --dashboard, watched (${who}; ${part}) and not, in blocks of ${updates} updates without their first ${settle}`,
    );
    console.log(
      `commit ${commit()}, Node ${process.versions.node}, ${cpus().length} cores, ${cpus()[0]?.model.trim()}, load ${loadavg()[0]?.toFixed(1)}; ${/^adapter: .*$/m.exec(stderr)?.[0] ?? ""}; ${where}`,
    );
    const end = performance.now() + 1000 * seconds;
    let done = marks.length;
    for (let block = 0; block % 2 === 1 || block < 4 || performance.now() < end; block++) {
      const watched = block % 4 === 1 || block % 4 === 2; // A B B A
      await (watched ? audience.come() : audience.go());
      done = Math.max(done, marks.length);
      const [first, last] = [await update(done + settle), await update(done + updates)];
      const each = (of: (mark: Mark) => number) => (of(last) - of(first)) / (updates - settle);
      blocks.push({
        ...{ watched, wall: each(({ at }) => at) },
        main: each(({ processor }) => processor.main),
        dashboard: each(({ processor }) => processor.dashboard),
        others: each(({ processor }) => processor.others),
      });
      done += updates;
    }
  } finally {
    child.kill("SIGKILL");
    await ended;
    await audience?.end();
  }
  tell(blocks);
  console.log(`load ${loadavg()[0]?.toFixed(1)} at the end`);
}

function tell(blocks: readonly Block[]): void {
  const mean = (numbers: readonly number[]) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
  for (const watched of [false, true]) {
    const side = blocks.filter((block) => block.watched === watched);
    const of = (pick: (block: Block) => number) => mean(side.map(pick)).toFixed(2);
    console.log(
      `${watched ? "watched    " : "not watched"} ${side.length} blocks: ${of(({ wall }) => wall)} ms an update; processor ${of(({ main }) => main)} ms in the thread that trains, ${of(({ others }) => others)} in the adapter's and Node's, ${of(({ dashboard }) => dashboard)} in the dashboard's`,
    );
  }
  if (!values.browser) console.log(`who watched had ${told.news} pieces of news, ${(told.bytes / 1000).toFixed(0)} kB`);
  const pairs = blocks.length / 2;
  const more = (name: string, pick: (block: Block) => number) => {
    const ratios = Array.from({ length: pairs }, (_, pair) => {
      const two = blocks.slice(2 * pair, 2 * pair + 2);
      const of = (watched: boolean) => two.filter((block) => block.watched === watched).map(pick)[0] ?? Number.NaN;
      return of(true) / of(false) - 1;
    });
    const interval = meanInterval(ratios);
    const percent = (share: number) => `${(100 * share).toFixed(2)}%`;
    console.log(
      `${name}: ${percent(interval.mean)} more when watched (mean of ${pairs} pairs; 95% interval ${percent(interval.low)} to ${percent(interval.high)})`,
    );
    return interval;
  };
  const { low } = more("time of an update", ({ wall }) => wall);
  more("processor time of the run's process", ({ main, others, dashboard }) => main + others + dashboard);
  more("without the dashboard's own thread", ({ main, others }) => main + others);
  if (low > LIMIT) process.exitCode = 1;
}

try {
  await main();
} finally {
  rmSync(root, { recursive: true, force: true });
}
