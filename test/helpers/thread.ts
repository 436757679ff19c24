/** The module of a thread that does what it is told: answers, throws, loops, takes memory without end, or sleeps. */
globalThis.onmessage = ({ data }: MessageEvent<string | Int32Array>) => {
  if (typeof data !== "string") Atomics.wait(data, 0, 0); // until it is woken
  if (data === "loop") for (;;);
  if (data === "memory") for (const objects: object[] = []; ; ) objects.push({ one: 1 });
  if (data === "throw") throw new RangeError("no such thing");
  if (data === "reject") void Promise.reject(new RangeError("later"));
  else postMessage(`heard ${data}`);
};
