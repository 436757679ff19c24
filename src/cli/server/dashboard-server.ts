/**
 * The server of the dashboard: the page, the runs as JSON, and news of them as server-sent events. For this machine
 * alone: it is bound to 127.0.0.1, refuses requests under another name (a page elsewhere whose name was made to point
 * here) and of other pages, and knows runs by numbers, so that no request can name a path. It changes nothing.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { performance } from "node:perf_hooks";
import type { RunSummary } from "../../dashboard/protocol.ts";
import { MOST_RUNS, RunFolder, runFolders } from "../../dashboard/run-folder.ts";
import { errorCode } from "../../engine/platform/node-errors.ts";
import { errorMessage, FileError } from "../../errors.ts";
import { filesAtOnce } from "./files-at-once.ts";
import { PAGE_HEADERS, type PageFile } from "./page-files.ts";

/** Between two looks at the folders while somebody watches. */
const LOOK_MS = 1000;
/** The longest that those who watch wait for news, whatever a look takes. */
const MOST_LOOK_MS = 5000;
/** So often a look is for new runs too. */
const SEARCH_MS = 5000;
/** What a look for those who watch has read is not read again for what they ask at the news. */
const FRESH_MS = 500;
/** Open streams of events; a page has one. */
const MOST_LISTENERS = 200;
/** By which streams show that they live. */
const BEAT_MS = 15_000;

export interface DashboardOptions {
  /** Runs, and folders of runs. */
  readonly folders: readonly string[];
  /** 0 for any that is free. */
  readonly port: number;
  readonly page: ReadonlyMap<string, PageFile>;
  /**
   * The share of the time that it may be at work while somebody watches: looks are rarer where they take longer, but
   * never rarer than MOST_LOOK_MS.
   */
  readonly workShare?: number;
  readonly onWarning: (sentence: string) => void;
}

export class DashboardServer {
  readonly #options: DashboardOptions;
  readonly #server: Server;
  readonly #runs = new Map<string, RunFolder>();
  /** Runs that were ever found: a number is given once. */
  #found = 0;
  readonly #listeners = new Set<ServerResponse>();
  /** The answers for a run's state as text, since many pages ask for the same. */
  readonly #answers = new WeakMap<
    RunFolder,
    { readonly version: number; readonly texts: Map<string, Promise<string>> }
  >();
  #looking: ReturnType<typeof setTimeout> | undefined;
  #beat: ReturnType<typeof setInterval> | undefined;
  #told = "";
  /** When runs were searched for, and when a look for those who watch had read their files. */
  #searched = Number.NEGATIVE_INFINITY;
  #looked = Number.NEGATIVE_INFINITY;
  /** What this thread had done at the last look. */
  #work = performance.eventLoopUtilization();

  private constructor(options: DashboardOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        if (!(error instanceof FileError)) options.onWarning(`The dashboard failed: ${errorMessage(error)}`);
        if (!response.headersSent) refuse(response, 500, "the run cannot be read");
        else response.end();
      });
    });
    this.#server.requestTimeout = 10_000;
  }

  /**
   * @param onRead how many runs have been read, and of how many
   * @throws FileError where a folder cannot be read, or the port cannot be taken
   */
  static async start(
    options: DashboardOptions,
    onRead: (done: number, total: number) => void = () => undefined,
  ): Promise<DashboardServer> {
    const dashboard = new DashboardServer(options);
    await dashboard.#search();
    if (dashboard.#runs.size >= MOST_RUNS) {
      options.onWarning(
        `The dashboard shows at most ${MOST_RUNS} runs, the first ones by their names; name fewer folders to see others.`,
      );
    }
    await dashboard.#read(onRead);
    await new Promise<void>((resolve, reject) => {
      dashboard.#server.once("error", (error) =>
        reject(new FileError(portFault(options.port, error), { cause: error })),
      );
      dashboard.#server.listen(options.port, "127.0.0.1", resolve);
    });
    dashboard.#beat = setInterval(() => dashboard.#send(": here\n\n"), BEAT_MS);
    return dashboard;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get address(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  get runs(): readonly RunSummary[] {
    return [...this.#runs.values()].map(({ summary }) => summary);
  }

  async close(): Promise<void> {
    clearTimeout(this.#looking);
    clearInterval(this.#beat);
    for (const listener of this.#listeners) listener.end();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(PAGE_HEADERS)) response.setHeader(name, value);
    if (!this.#isOwn(request)) return refuse(response, 403, "this address is for pages of its own");
    if (request.method !== "GET") return refuse(response, 405, "there is only GET");
    const [pathname = "", query = ""] = (request.url ?? "").split("?"); // as it was sent: nothing is decoded or resolved
    const file = this.#options.page.get(pathname);
    if (file !== undefined) {
      response.setHeader("content-type", file.type);
      response.end(file.content);
      return;
    }
    if (pathname === "/api/runs") {
      await this.#look();
      return answer(response, this.runs);
    }
    if (pathname === "/api/events") {
      this.#listen(request, response);
      return;
    }
    const [, id = "", what = "", step] = /^\/api\/runs\/([a-z0-9]+)\/([a-z]+)(?:\/(\d+))?$/.exec(pathname) ?? [];
    const run = this.#runs.get(id);
    const ofRun = Object.hasOwn(OF_RUN, what) ? OF_RUN[what] : undefined;
    if (run === undefined || ofRun === undefined || (step !== undefined && what !== "examples")) {
      return refuse(response, 404, "there is no such thing");
    }
    if (performance.now() - this.#looked > FRESH_MS) await run.refresh();
    if (step === undefined) return answerText(response, await this.#known(run, what, query, ofRun));
    const line = await run.examples(Number(step));
    if (line === undefined) return refuse(response, 404, "the examples of that update are not logged");
    answer(response, line);
  }

  /** What is asked of a run, as text; made once for each state of its files. */
  #known(run: RunFolder, what: string, query: string, ofRun: Answering): Promise<string> {
    const { version } = run;
    let known = this.#answers.get(run);
    if (known?.version !== version) {
      known = { version, texts: new Map() };
      this.#answers.set(run, known);
    }
    const { texts } = known;
    const name = `${what}?${query}`;
    const found = texts.get(name);
    if (found !== undefined) return found;
    const text = Promise.resolve(ofRun(run, query)).then((value) => JSON.stringify(value));
    if (texts.size < MOST_ANSWERS) texts.set(name, text);
    text.catch(() => texts.delete(name)); // the next request tries again
    return text;
  }

  /** Whether a request was made under this server's own name, and by no other page. */
  #isOwn({ headers }: IncomingMessage): boolean {
    const hosts = ["127.0.0.1", "localhost"].map((name) => `${name}:${this.port}`);
    const { host, origin } = headers;
    if (host === undefined || !hosts.includes(host)) return false;
    const site = headers["sec-fetch-site"];
    if (site !== undefined && site !== "same-origin" && site !== "none") return false;
    return origin === undefined || hosts.some((own) => origin === `http://${own}`);
  }

  #listen(request: IncomingMessage, response: ServerResponse): void {
    if (this.#listeners.size >= MOST_LISTENERS) {
      refuse(response, 503, "too many pages watch");
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    this.#listeners.add(response);
    request.on("close", () => this.#listeners.delete(response));
    response.write(`retry: 1000\nevent: runs\ndata: ${JSON.stringify(this.runs)}\n\n`);
    this.#looking ??= setTimeout(() => this.#lookAgain(), LOOK_MS);
  }

  /** Milliseconds until the next look, by what the last one and the answers behind it took. */
  #pauseMs(): number {
    const { workShare = 1 } = this.#options;
    const now = performance.eventLoopUtilization();
    const { active } = performance.eventLoopUtilization(now, this.#work);
    this.#work = now;
    return Math.min(MOST_LOOK_MS, Math.max(LOOK_MS, active / workShare));
  }

  /** While somebody watches. */
  async #lookAgain(): Promise<void> {
    this.#looking = undefined;
    if (performance.now() - this.#searched > SEARCH_MS) await this.#searchAgain();
    await this.#read();
    this.#looked = performance.now();
    const now = JSON.stringify(this.runs);
    if (now !== this.#told) this.#send(`event: runs\ndata: ${now}\n\n`);
    this.#told = now;
    if (this.#listeners.size > 0) this.#looking = setTimeout(() => this.#lookAgain(), this.#pauseMs());
  }

  /** Listeners that take no more are let go: they come again. */
  #send(text: string): void {
    for (const listener of this.#listeners) {
      if (listener.writableLength > 2 ** 20) listener.destroy();
      else listener.write(text);
    }
  }

  /** Looks for runs, and reads what is new of them. */
  async #look(): Promise<void> {
    await this.#searchAgain();
    await this.#read();
  }

  /** A folder that cannot be read by now leaves the runs as they are known. */
  async #searchAgain(): Promise<void> {
    try {
      await this.#search();
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
    }
  }

  /** Takes the runs that are new into the list, and those that were removed out of it. */
  async #search(): Promise<void> {
    this.#searched = performance.now();
    const folders = await runFolders(this.#options.folders, filesAtOnce);
    for (const [id, { folder }] of this.#runs) {
      if (folders.includes(folder)) continue;
      this.#runs.delete(id);
    }
    const known = new Set([...this.#runs.values()].map(({ folder }) => folder));
    for (const folder of folders) {
      if (known.has(folder)) continue;
      const id = `r${this.#found++}`;
      this.#runs.set(id, new RunFolder(id, folder, filesAtOnce));
    }
  }

  async #read(onRead: (done: number, total: number) => void = () => undefined): Promise<void> {
    const runs = [...this.#runs.values()];
    for (const [at, run] of runs.entries()) {
      await run.refresh();
      onRead(at + 1, runs.length);
    }
  }
}

/** Why a port cannot be taken, and what to do. */
function portFault(port: number, error: unknown): string {
  const instead = "choose another one, or 0 for any that is free";
  if (errorCode(error) === "EADDRINUSE") return `Port ${port} is taken, perhaps by another dashboard: ${instead}.`;
  if (errorCode(error) === "EACCES") return `Port ${port} is reserved by the system: ${instead}.`;
  return `The dashboard cannot have port ${port}: ${errorMessage(error)}; ${instead}.`;
}

/** Answers that are kept of one state of a run; pages ask for about as many. */
const MOST_ANSWERS = 100;

/** @param query what stands behind the question mark */
type Answering = (run: RunFolder, query: string) => unknown;

/** What a page may ask of a run: a word in place of a path. */
const OF_RUN: Readonly<Record<string, Answering>> = {
  metrics: (run, query) => {
    const [, from, generation] = /^from=(\d{1,15})&generation=(\d{1,15})$/.exec(query) ?? [];
    return run.metrics(from === undefined ? undefined : { lines: Number(from), generation: Number(generation) });
  },
  examples: (run) => ({ steps: run.exampleSteps }),
  samples: async (run) => (await run.samples()) ?? { first: 0, last: 0, samples: [] },
  rewards: (run) => run.rewards ?? null,
  rows: (run) => run.rows(),
  events: (run) => run.events,
  facts: (run) => run.facts(),
};

function answer(response: ServerResponse, value: unknown): void {
  answerText(response, JSON.stringify(value));
}

function answerText(response: ServerResponse, text: string): void {
  response.setHeader("content-type", "application/json");
  response.end(text);
}

function refuse(response: ServerResponse, status: number, reason: string): void {
  response.statusCode = status;
  response.setHeader("content-type", "text/plain; charset=utf-8");
  response.end(`${reason}\n`);
}
