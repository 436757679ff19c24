/** Threads in a browser: Web Workers with a time limit. The browser bounds their memory. */
import { type Thread, ThreadLimit } from "./platform.ts";

export function browserThread(worker: Worker, heapBytes: number): Thread {
  return {
    heapBytes,
    async ask(message, workMs, transfer = []) {
      let clock: ReturnType<typeof setTimeout> | undefined;
      try {
        return await new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onmessageerror = () => reject(new Error("The thread's answer cannot be read."));
          worker.onerror = (event) => reject(new Error(event.message || "The thread's module cannot be loaded."));
          clock = setTimeout(() => {
            worker.terminate();
            reject(new ThreadLimit("time"));
          }, workMs);
          worker.postMessage(message, [...transfer]);
        });
      } finally {
        clearTimeout(clock);
      }
    },
    end: async () => worker.terminate(),
  };
}
