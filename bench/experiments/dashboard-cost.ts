/**
 * What a training run pays for its dashboard: `kto train` with `--dashboard` and somebody who watches, and without, in
 * turn. The run's wall time as it tells it, and the processor time of its whole process, the dashboard's thread included.
 *
 *   npx tsx bench/experiments/dashboard-cost.ts [--pairs 5] [--updates 200] [--watchers 1] [--part overview]
 *
 * A watcher asks as an open page does, by the same code: for what the part that it shows needs, where there is news of
 * it. What it takes itself is not the run's. `--profile FOLDER` leaves V8's processor profiles of all threads there.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { metricsPath, PARTS, type Part, stateOf, withNews } from "../../src/dashboard/page/asking.ts";
import type { ExamplesAnswer, MetricsAnswer, RunSummary } from "../../src/dashboard/protocol.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { summary } from "../measure/measure.ts";

const median = (numbers: readonly number[]) => summary(numbers).medianMs;

const { values } = parseArgs({
  options: {
    pairs: { type: "string", default: "5" },
    updates: { type: "string", default: "200" },
    watchers: { type: "string", default: "1" },
    part: { type: "string", default: "overview" },
    profile: { type: "string" },
  },
});
const part = Object.keys(PARTS).find((name): name is Part => name === values.part);
if (part === undefined) throw new Error(`--part is one of ${Object.keys(PARTS).join(", ")}.`);
const asks: (typeof PARTS)[Part]["asks"] = PARTS[part].asks;
const root = mkdtempSync(join(tmpdir(), "kto-dashboard-cost-"));
/**
 * Runs in the training's process: leaves the processor time of all its threads and, on Linux, that of the dashboard's
 * own, which is known by its priority, as of the last second.
 */
const meter = `data:text/javascript,${encodeURIComponent(`
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
let own = 0;
const look = () => {
  for (const id of readdirSync("/proc/self/task")) {
    const stat = readFileSync("/proc/self/task/" + id + "/stat", "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[16] === "10") own = (Number(fields[11]) + Number(fields[12])) / 100;
  }
};
if (process.platform === "linux") setInterval(look, 1000).unref();
process.on("exit", () => writeFileSync(process.env.KTO_METER, JSON.stringify({ ...process.cpuUsage(), own })));
`)}`;

interface Cost {
  readonly seconds: number;
  readonly processorSeconds: number;
  /** Of the dashboard's own thread. */
  readonly ownSeconds: number;
  readonly adapter: string;
  readonly news: number;
  /** That the watchers were sent. */
  readonly bytes: number;
}

async function train(name: string, watched: boolean): Promise<Cost> {
  const output = join(root, name);
  const words = [
    ...["train", "--model_name_or_path", "examples/quickstart/model", "--output_dir", output, "--json"],
    ...["--dataset_name", "examples/quickstart/feedback.jsonl", "--per_device_train_batch_size", "8"],
    ...["--max_steps", values.updates, "--logging_steps", "1", "--learning_rate", "5e-4", "--save_strategy", "no"],
    ...(watched ? ["--dashboard", "--dashboard_port", "0"] : []),
  ];
  const env = { ...process.env, KTO_METER: join(root, "meter.json") };
  const profiling =
    values.profile === undefined
      ? []
      : ["--cpu-prof", "--cpu-prof-dir", join(values.profile, watched ? "with" : "without")];
  const command = [...profiling, "--import", meter, "bin/kto.js", ...words];
  const child = spawn(process.execPath, command, { env, stdio: "pipe" });
  const ended = once(child, "close") as Promise<[number | null]>;
  let [stdout, stderr] = ["", ""];
  const watchers: Watcher[] = [];
  let isWatched = false;
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    const address = /^dashboard: (\S+)$/m.exec(stderr)?.[1];
    if (address === undefined || isWatched) return;
    isWatched = true;
    while (watchers.length < Number(values.watchers)) watchers.push(new Watcher(address));
  });
  const [code] = await ended;
  if (code !== 0) throw new Error(stderr);
  const { train_runtime, adapter } = JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as {
    train_runtime: number;
    adapter: string;
  };
  const used = JSON.parse(readFileSync(env.KTO_METER, "utf8")) as NodeJS.CpuUsage & { readonly own: number };
  const sum = (pick: (watcher: Watcher) => number) => watchers.reduce((all, watcher) => all + pick(watcher), 0);
  return {
    ...{ seconds: train_runtime, processorSeconds: (used.user + used.system) / 1e6, ownSeconds: used.own, adapter },
    ...{ news: sum((watcher) => watcher.news), bytes: sum((watcher) => watcher.bytes) },
  };
}

/** Follows the news of a server and asks for what is new, as a page with one part open does; errors are its end. */
class Watcher {
  news = 0;
  bytes = 0;
  readonly #address: string;
  readonly #states = new Map<string, string>();
  #metrics: MetricsAnswer | undefined;

  constructor(address: string) {
    this.#address = address;
    const stream = get(`${address}api/events`, (response: IncomingMessage) => {
      let rest = "";
      response.setEncoding("utf8").on("error", () => undefined);
      response.on("data", (text: string) => {
        const events = (rest + text).split("\n\n");
        rest = events.pop() ?? "";
        for (const event of events) {
          const data = /^data: (.*)$/m.exec(event)?.[1];
          const [run] = data === undefined ? [] : (JSON.parse(data) as RunSummary[]);
          if (run === undefined) continue;
          this.news++;
          this.#ask(run).catch(() => undefined); // the run has ended
        }
      });
    });
    stream.on("error", () => undefined);
  }

  async #ask(run: RunSummary): Promise<void> {
    for (const word of asks) {
      const state = stateOf(word, run);
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
    this.bytes += text.length;
    return JSON.parse(text) as T;
  }
}

async function main(): Promise<void> {
  const pairs: { readonly without: Cost; readonly with: Cost }[] = [];
  const { adapter } = await train("first", false); // compiles, and fills the caches of both
  console.log(
    `kto train with and without --dashboard and ${values.watchers} that watch it (${part}), commit ${commit()}, Node ${process.versions.node}`,
  );
  console.log(
    `${cpus().length} cores, ${cpus()[0]?.model.trim()}; ${adapter}; ${values.updates} logged updates of 8 rows, stories260K`,
  );
  for (let i = 0; i < Number(values.pairs); i++) {
    // Who goes first changes, so that a machine that gets busier favours neither.
    const order = i % 2 === 0 ? [false, true] : [true, false];
    const costs = new Map<boolean, Cost>();
    for (const watched of order) costs.set(watched, await train(`${i}-${watched}`, watched));
    const [without, watched] = [costs.get(false), costs.get(true)];
    if (without === undefined || watched === undefined) throw new Error("a run is missing");
    pairs.push({ without, with: watched });
    console.log(
      `without ${without.seconds.toFixed(2)} s, processor ${without.processorSeconds.toFixed(2)} s; with ${watched.seconds.toFixed(2)} s, processor ${watched.processorSeconds.toFixed(2)} s, of it the dashboard's thread ${watched.ownSeconds.toFixed(2)} s; ${watched.news} pieces of news, ${(watched.bytes / 1000).toFixed(0)} kB`,
    );
  }
  const ratio = (pick: (cost: Cost) => number) =>
    pairs.map(({ without, with: watched }) => 100 * (pick(watched) / pick(without) - 1));
  const told = (name: string, percents: readonly number[]) =>
    console.log(
      `${name}: ${median(percents).toFixed(2)}% more with it (median of ${percents.length} pairs; from ${Math.min(...percents).toFixed(2)}% to ${Math.max(...percents).toFixed(2)}%)`,
    );
  told(
    "wall time of the run",
    ratio(({ seconds }) => seconds),
  );
  told(
    "processor time of its process",
    ratio(({ processorSeconds }) => processorSeconds),
  );
}

try {
  await main();
} finally {
  rmSync(root, { recursive: true, force: true });
}
