/**
 * The CPU time of a worker thread. Node 24.6 and later tell it by `worker.cpuUsage()`. Earlier ones know the usage of
 * the whole process alone, which what runs beside the thread adds to: a thread then gets less than its limit where the
 * rest of the process computes meanwhile, but never less than its limit by the clock on the wall.
 */
/** Microseconds, as `process.cpuUsage` has them. */
type Usage = NodeJS.CpuUsage;

/** What newer Nodes have and the declarations for the oldest that is supported lack. */
interface MeasuredWorker {
  cpuUsage(): Promise<Usage>;
}

function isMeasured(worker: object): worker is MeasuredWorker {
  return "cpuUsage" in worker && typeof worker.cpuUsage === "function";
}

/**
 * Milliseconds of CPU time since the call, of the thread or, see above, of the process. Asking a thread that has ended
 * rejects.
 */
export async function cpuClock(worker: object): Promise<() => Promise<number>> {
  const usage = isMeasured(worker) ? () => worker.cpuUsage() : async () => process.cpuUsage();
  const total = ({ user, system }: Usage) => (user + system) / 1000;
  const start = total(await usage());
  return async () => total(await usage()) - start;
}
