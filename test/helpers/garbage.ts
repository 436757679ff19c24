/** Garbage collections by force, for what must not depend on when they happen. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Collects all garbage every few milliseconds while `work` is waited for. */
export async function collectingGarbage<T>(work: () => Promise<T>): Promise<T> {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const timer = setInterval(collect, 50);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}
