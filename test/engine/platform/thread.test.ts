/** Threads that are ended when they take too much: Node's worker threads, and a browser's workers by a stand-in. */
import { spawnSync } from "node:child_process";
import { EventEmitter } from "node:events";
import { Worker as NodeWorker } from "node:worker_threads";
import { expect, test } from "vitest";
import { browserThread } from "../../../src/engine/platform/browser-thread.ts";
import { platform, type Thread, ThreadLimit } from "../../../src/engine/platform/index.ts";
import { cpuClock } from "../../../src/engine/platform/node-thread-time.ts";
import { builtModule } from "../../helpers/built.ts";

const code = {
  address: new URL("../../helpers/thread.js", import.meta.url),
  open: () => new Worker(new URL("../../helpers/thread.js", import.meta.url)),
};

async function withThread<T>(use: (thread: Thread) => Promise<T>): Promise<T> {
  const thread = await platform.startThread(code, 2 ** 26);
  try {
    return await use(thread);
  } finally {
    await thread.end();
  }
}

test("a thread answers one message after another", async () => {
  await withThread(async (thread) => {
    expect(await thread.ask("one", 60_000)).toBe("heard one");
    expect(await thread.ask("two", 60_000)).toBe("heard two");
  });
});

test("one that loops, or takes memory without end, is ended and says which", async () => {
  const asked = (message: string, workMs: number) =>
    withThread(async (thread) => {
      const error = await thread.ask(message, workMs).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ThreadLimit);
      await expect(thread.ask("more", 60_000)).rejects.toBe(error);
      return (error as ThreadLimit).limit;
    });
  expect(await asked("loop", 50)).toBe("time");
  expect(await asked("memory", 60_000)).toBe("memory");
});

test("what a thread throws, at once or later, is thrown by whoever asked", async () => {
  for (const [message, text] of [
    ["throw", "no such thing"],
    ["reject", "later"],
  ] as const) {
    await withThread((thread) => expect(thread.ask(message, 60_000)).rejects.toThrow(text));
  }
});

test("a module that is not there is an error of its own", async () => {
  const address = new URL("./nowhere.js", import.meta.url);
  await expect(platform.startThread({ ...code, address }, 2 ** 26)).rejects.toThrow("nowhere");
});

test("a thread that nobody ends does not keep the process alive", () => {
  const script = `
    const { platform } = await import("${builtModule("platform-node")}");
    const address = new URL("${code.address.href}");
    const thread = await platform.startThread({ address, open() {} }, 2 ** 26);
    console.log(await thread.ask("once", 60000));`;
  const args = ["--input-type=module", "--eval", script];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 60_000 });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "heard once\n", stderr: "" });
});

/** Lets this process compute for so long, and its timers run meanwhile. */
async function compute(cpuMs: number): Promise<void> {
  const start = process.cpuUsage();
  for (;;) {
    const { user, system } = process.cpuUsage(start);
    if ((user + system) / 1000 > cpuMs) return;
    for (let i = 0; i < 1e6; i++) Math.sqrt(i);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test("the CPU time is the thread's own where Node tells it, else the process's", async () => {
  let own = 5000;
  const ofThread = await cpuClock(
    Object.assign(new EventEmitter(), { cpuUsage: async () => ({ user: own, system: 2000 }) }),
  );
  const ofProcess = await cpuClock(new EventEmitter());
  await compute(20);
  expect(await ofThread()).toBe(0);
  own += 30_000;
  expect(await ofThread()).toBe(30);
  expect(await ofProcess()).toBeGreaterThan(20);
});

test("what the process computes beside a thread is taken for the thread's work only where Node does not tell", async () => {
  const workMs = 100;
  const gate = new Int32Array(new SharedArrayBuffer(4));
  await withThread(async (thread) => {
    const outcome = thread.ask(gate, workMs).catch((error: unknown) => error);
    await compute(4 * workMs);
    Atomics.notify(gate, 0, Atomics.store(gate, 0, 1));
    const expected = "cpuUsage" in NodeWorker.prototype ? "heard 1" : new ThreadLimit("time");
    expect(await outcome).toEqual(expected);
  });
});

/** What browserThread needs of a Web Worker. */
class WorkerStandIn {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((event: { message: string }) => void) | null = null;
  isTerminated = false;
  transferred: unknown;

  postMessage(message: unknown, transfer: unknown) {
    this.transferred = transfer;
    if (message === "throw") queueMicrotask(() => this.onerror?.({ message: "no such thing" }));
    else if (message !== "loop") queueMicrotask(() => this.onmessage?.({ data: `heard ${message}` }));
  }

  terminate() {
    this.isTerminated = true;
  }
}

test("a browser's thread answers, fails, and is terminated when it takes too long", async () => {
  const worker = new WorkerStandIn();
  const thread = browserThread(worker as unknown as Worker, 2 ** 26);
  const buffer = new ArrayBuffer(1);
  expect(await thread.ask("one", 60_000, [buffer])).toBe("heard one");
  expect(worker.transferred).toEqual([buffer]);
  await expect(thread.ask("throw", 60_000)).rejects.toThrow("no such thing");
  expect(worker.isTerminated).toBe(false);
  await expect(thread.ask("loop", 20)).rejects.toThrow(ThreadLimit);
  expect(worker.isTerminated).toBe(true);
});

test("a thread that is held in native code is given up at once: what went wrong is told, and the process ends", () => {
  // A call of C holds its thread as MPI_Init does: nothing ends it.
  const program = `
    import { Worker } from "node:worker_threads";
    import koffi from "koffi";
    import { abandonWorker } from "./src/engine/platform/node-thread.ts";
    import { LIBC } from "./src/engine/platform/node-mpi-library.ts";
    const held = 'require("node:worker_threads").parentPort.postMessage(1);' +
      'require("koffi").load("' + LIBC + '").func("sleep", "uint", ["uint"])(600);';
    const worker = new Worker(held, { eval: true, execArgv: [] });
    worker.once("message", () => setTimeout(() => {
      const exit = koffi.load(LIBC).func("_exit", "void", ["int"]);
      abandonWorker(worker, (code) => void exit(code));
      console.log("told");
      process.exitCode = 11;
    }, 100));
  `;
  const words = ["--import", "tsx", "--input-type", "module", "--eval", program];
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: "utf8", timeout: 60_000 });
  expect({ status, stdout, stderr }).toEqual({ status: 11, stdout: "told\n", stderr: "" });
});
