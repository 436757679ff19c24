/**
 * The process of a peer: reads its task from argv, gives the peer the adapter that our own engine would use, runs the
 * work once, checks the result, and then times it as `bench/measure/measure.ts` times ours. The last line of stdout is
 * the answer: a PeerResult, or null for work that this peer does not do.
 */
import { globals } from "webgpu";
import { platform } from "../../src/engine/platform/index.ts";
import { summary, timingOptions } from "../measure/measure.ts";
import type { PeerResult, PeerWork } from "../measure/peer-work.ts";

/** Work that is ready to be run again and again. */
export interface PeerRun {
  /** Throws where the outputs are wrong. Comes first, and compiles. */
  readonly check: () => Promise<void>;
  /** Submits one run. */
  readonly submit: () => void | Promise<void>;
  readonly queue: GPUQueue;
}

/** One run that takes longer needs no more warm-up, and few repetitions. */
const SLOW_MS = 5000;

/** Answers for the peer whose `prepare` is given; undefined from it means that the peer does not do this work. */
export async function answer(prepare: (work: PeerWork) => Promise<PeerRun | undefined>): Promise<void> {
  const { work, adapter } = JSON.parse(process.argv[2] ?? "{}") as { work: PeerWork; adapter?: string };
  const found = await platform.requestAdapter(adapter);
  Object.assign(globalThis, globals);
  // An engine whose commands the device refuses is fast, and says so on stderr at most.
  let refused: string | undefined;
  const open = found.adapter.requestDevice.bind(found.adapter);
  found.adapter.requestDevice = async (descriptor) => {
    const device = await open(descriptor);
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      refused ??= (event as GPUUncapturedErrorEvent).error.message;
    });
    return device;
  };
  const gpu = { requestAdapter: async () => found.adapter };
  Object.defineProperty(globalThis, "navigator", { value: { gpu, userAgent: "Node" }, configurable: true });
  let result: PeerResult | null;
  try {
    const run = await prepare(work);
    if (run === undefined) result = null;
    else {
      await run.check();
      result = await time(run);
      if (refused !== undefined) throw new Error(`the device refused its commands: ${refused}`);
    }
  } catch (error) {
    result = { error: (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "" };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}

async function time(run: PeerRun): Promise<PeerResult> {
  const replay = async (count: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < count; i++) await run.submit();
    // Waits as our own device does: busy waiting would take a core from a software adapter.
    await platform.withoutSpinning(run.queue.onSubmittedWorkDone());
    return performance.now() - start;
  };
  let once = await replay(1);
  for (let i = 0; i < 2 && once < SLOW_MS; i++) once = await replay(1);
  const { leastMs, repetitions } = once < SLOW_MS ? timingOptions(once > 2000) : { leastMs: 0, repetitions: 3 };
  const count = Math.max(1, Math.ceil(leastMs / once));
  const times: number[] = [];
  for (let i = 0; i < repetitions; i++) times.push((await replay(count)) / count);
  const { medianMs, spread } = summary(times);
  return { median_ms: medianMs, spread };
}
