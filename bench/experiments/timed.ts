/** Wall time and processor time of some work. A machine's other work lengthens the one and hardly the other. */

export interface Timed {
  readonly ms: number;
  /**
   * Of all threads of this process together. A software adapter computes in it, so that on an idle machine the wall
   * time is about this over the cores; of a GPU's work it tells nothing.
   */
  readonly processorMs: number;
}

/** A point in time, to take the difference of two. */
export function now(): Timed {
  const { user, system } = process.cpuUsage();
  return { ms: performance.now(), processorMs: (user + system) / 1000 };
}

export function since(start: Timed): Timed {
  const end = now();
  return { ms: end.ms - start.ms, processorMs: end.processorMs - start.processorMs };
}
