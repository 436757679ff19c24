/**
 * Threads in Node: a worker thread with the interface of a Web Worker, so that one module runs in both hosts. V8 limits
 * its heap and ends it when that is full. Its time is measured here, because a thread in an endless loop cannot end
 * itself.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { getHeapStatistics } from "node:v8";
import { Worker } from "node:worker_threads";
import { errorCode } from "./node-errors.ts";
import { type Thread, type ThreadCode, ThreadLimit } from "./platform.ts";

/** How often the time that an answer takes is checked. */
const CHECK_MS = 20;

/** Defines what a Web Worker has and a worker thread lacks, then loads the module: sources through tsx. */
const bootstrap = `
const { parentPort, workerData } = require("node:worker_threads");
globalThis.postMessage = (message, transfer) => parentPort.postMessage(message, transfer);
parentPort.on("message", (data) => globalThis.onmessage({ data }));
const { tsx, address } = workerData;
const loader = tsx === undefined ? Promise.resolve() : import(tsx).then(({ register }) => register());
loader.then(() => import(address)).then(() => postMessage("ready"));
`;

/** See Platform.startThread. */
export async function startThread(code: ThreadCode, heapBytes: number): Promise<Thread> {
  const granted = Math.min(heapBytes, getHeapStatistics().heap_size_limit);
  const isBuilt = existsSync(fileURLToPath(code.address));
  const worker = new Worker(bootstrap, {
    eval: true,
    // Options of the process, such as --input-type or --import, must not apply to this thread.
    execArgv: [],
    workerData: {
      address: isBuilt ? code.address.href : code.address.href.replace(/\.js$/, ".ts"),
      tsx: isBuilt ? undefined : import.meta.resolve("tsx/esm/api"),
    },
    resourceLimits: { maxOldGenerationSizeMb: Math.ceil(granted / 2 ** 20) },
  });
  const thread = new NodeThread(worker, granted);
  await thread.ready;
  return thread;
}

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
}

class NodeThread implements Thread {
  /** Resolves when the module is loaded. */
  readonly ready: Promise<unknown>;
  readonly heapBytes: number;
  readonly #worker: Worker;
  #waiting: Waiting | undefined;
  /** Why there will be no more answers. */
  #ended: Error | undefined;

  constructor(worker: Worker, heapBytes: number) {
    this.#worker = worker;
    this.heapBytes = heapBytes;
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
    const [start, work] = [performance.now(), process.cpuUsage()];
    const clock = setInterval(() => {
      const { user, system } = process.cpuUsage(work);
      // On a busy machine the clock runs on while the thread waits for a core, so CPU time has to reach the limit too.
      if (Math.min(performance.now() - start, (user + system) / 1000) <= workMs) return;
      this.#end(new ThreadLimit("time"));
      void this.#worker.terminate();
    }, CHECK_MS);
    try {
      const answer = this.#answer();
      this.#worker.postMessage(message, transfer);
      return await answer;
    } finally {
      clearInterval(clock);
      // A thread that nobody ends must not keep the process alive.
      this.#worker.unref();
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
    this.#settle(({ reject }) => reject(error));
  }

  #settle(use: (waiting: Waiting) => void): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting !== undefined) use(waiting);
  }
}
