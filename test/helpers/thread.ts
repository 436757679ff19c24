/** The module of a thread that does what it is told: answers, throws, loops, or takes memory without end. */
globalThis.onmessage = ({ data }: MessageEvent<string>) => {
  if (data === "loop") for (;;);
  if (data === "memory") for (const objects: object[] = []; ; ) objects.push({ one: 1 });
  if (data === "throw") throw new RangeError("no such thing");
  if (data === "reject") void Promise.reject(new RangeError("later"));
  else postMessage(`heard ${data}`);
};
