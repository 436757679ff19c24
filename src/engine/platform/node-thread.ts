/**
 * Threads in Node: a worker thread with the interface of a Web Worker, so that one module runs in both hosts. V8 limits
 * its heap and ends it when that is full. Its time is measured here, because a thread in an endless loop cannot end
 * itself; whose CPU time that is, is told in `node-thread-time.ts`.
 */
import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { getHeapStatistics } from "node:v8";
import { type ResourceLimits, Worker } from "node:worker_threads";
import { errorCode } from "./node-errors.ts";
import { cpuClock } from "./node-thread-time.ts";
import { type Thread, type ThreadCode, ThreadLimit } from "./platform.ts";

/** How often the time that an answer takes is checked. */
const CHECK_MS = 20;

/** Defines what a Web Worker has and a worker thread lacks, then loads the module: sources through tsx. */
const bootstrap = `
const { parentPort, workerData } = require("node:worker_threads");
globalThis.postMessage = (message, options) => parentPort.postMessage(message, options?.transfer ?? options);
parentPort.on("message", (data) => globalThis.onmessage({ data }));
const { tsx, address } = workerData;
const loader = tsx === undefined ? Promise.resolve() : import(tsx).then(({ register }) => register());
loader.then(() => import(address)).then(() => postMessage("ready"));
`;

/** A worker thread with a module, whose first message is "ready". The module's name is that of the built file. */
export function openWorker(address: URL, resourceLimits: ResourceLimits = {}): Worker {
  const isBuilt = existsSync(fileURLToPath(address));
  return new Worker(bootstrap, {
    eval: true,
    // Options of the process, such as --input-type or --import, must not apply to this thread.
    execArgv: [],
    workerData: {
      address: isBuilt ? address.href : address.href.replace(/\.js$/, ".ts"),
      tsx: isBuilt ? undefined : import.meta.resolve("tsx/esm/api"),
    },
    resourceLimits,
  });
}

/**
 * Gives up a thread that may be held in native code. There it cannot be ended, and Node's own end of the process would
 * wait for it; so this neither waits nor lets the process wait, which ends by the system's call in place of Node's.
 *
 * @param exitNow ends this process at once, such as `_exit` of C
 */
export function abandonWorker(worker: Worker, exitNow: (code: number) => void): void {
  let hasEnded = false;
  worker.once("exit", () => {
    hasEnded = true;
  });
  void worker.terminate();
  worker.unref(); // which the line before undoes
  process.once("exit", (code) => {
    if (!hasEnded) exitNow(code);
  });
}

/** See Platform.startThread. */
export async function startThread(code: Pick<ThreadCode, "address">, heapBytes: number): Promise<NodeThread> {
  const granted = Math.min(heapBytes, getHeapStatistics().heap_size_limit);
  const worker = openWorker(code.address, { maxOldGenerationSizeMb: Math.ceil(granted / 2 ** 20) });
  const thread = new NodeThread(worker, granted);
  await thread.ready;
  return thread;
}

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class NodeThread implements Thread {
  /** Resolves when the module is loaded. */
  readonly ready: Promise<unknown>;
  /** Resolves when there will be no more answers, with the reason. */
  readonly ended: Promise<Error>;
  readonly heapBytes: number;
  readonly #worker: Worker;
  #waiting: Waiting | undefined;
  /** Why there will be no more answers. */
  #ended: Error | undefined;
  #tellEnd: (reason: Error) => void = () => undefined;

  constructor(worker: Worker, heapBytes: number) {
    this.#worker = worker;
    this.heapBytes = heapBytes;
    this.ended = new Promise((resolve) => {
      this.#tellEnd = resolve;
    });
    worker.on("message", (answer: unknown) => this.#settle(({ resolve }) => resolve(answer)));
    worker.on("error", (error: Error) => {
      this.#end(errorCode(error) === "ERR_WORKER_OUT_OF_MEMORY" ? new ThreadLimit("memory") : error);
    });
    worker.on("exit", () => this.#end(new Error("The thread has ended.")));
    this.ready = this.#answer();
  }

  async ask(message: unknown, workMs: number, transfer: readonly ArrayBuffer[] = []): Promise<unknown> {
    if (this.#ended !== undefined) throw this.#ended;
    this.#worker.ref();
    const answered = new AbortController();
    try {
      const cpuMs = await cpuClock(this.#worker).catch((error: unknown) => Promise.reject(this.#ended ?? error));
      if (this.#ended !== undefined) throw this.#ended;
      this.#worker.postMessage(message, transfer); // which throws for what cannot be sent
      const answer = this.#answer();
      void this.#limit(workMs, cpuMs, answered.signal);
      return await answer;
    } finally {
      answered.abort();
      // A thread that nobody ends must not keep the process alive.
      this.#worker.unref();
    }
  }

  /** Ends the thread once it has worked for this long, unless it has answered before. */
  async #limit(workMs: number, cpuMs: () => Promise<number>, answered: AbortSignal): Promise<void> {
    const start = performance.now();
    while (!answered.aborted) {
      await delay(CHECK_MS, undefined, { signal: answered }).catch(() => undefined);
      // On a busy machine the clock runs on while the thread waits for a core, so CPU time has to reach the limit too.
      if (performance.now() - start <= workMs) continue;
      const used = await cpuMs().catch(() => 0); // a thread that has ended by itself has told why
      if (used <= workMs || answered.aborted) continue;
      this.#end(new ThreadLimit("time"));
      await this.#worker.terminate();
    }
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #answer(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #end(error: Error): void {
    this.#ended ??= error;
    this.#tellEnd(this.#ended);
    this.#settle(({ reject }) => reject(error));
  }

  #settle(use: (waiting: Waiting) => void): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting !== undefined) use(waiting);
  }
}
