/**
 * The worker of the page: opens device and model, and does what it is asked for, one request after another. Files go in
 * and out as blobs, through folders in memory.
 */
import "./without-eval.ts";
import {
  AdapterError,
  Device,
  DeviceLostError,
  filesInMemory,
  type GivenFile,
  KtoError,
  memoryFolder,
  type TrainingStep,
} from "../../src/browser.ts";
import { noWebGpuSentence } from "./no-webgpu.ts";
import type { Reply, Request, Telling, Told } from "./protocol.ts";
import { type OwnRows, Session } from "./session.ts";

/** The part of a worker's scope that is used; the types of the whole project are a page's. */
interface Scope {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(reply: Reply): void;
}
const scope = globalThis as unknown as Scope;

/** Of the model that lies beside this file. */
const MODEL_FILES = [
  ...["config.json", "generation_config.json", "model.safetensors"],
  ...["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"],
];
const WEIGHTS = "model.safetensors";
/** The least milliseconds between two messages on what goes on. */
const APART_MS = 100;
/** How often in a training the watched stories are told again. */
const TELLINGS = 6;

const say = (reply: Reply) => scope.postMessage(reply);
const warn = (sentence: string) => say({ kind: "warning", sentence });

let device: Device | undefined;
let session: Session | undefined;
let own: (OwnRows & { readonly name: string }) | undefined;

async function opened(choices: Extract<Request, { kind: "open" }>["device"]): Promise<Device> {
  if (device) return device;
  const missing = noWebGpuSentence(navigator, globalThis.isSecureContext);
  if (missing !== undefined) throw new AdapterError(missing);
  say({ kind: "working", work: "opening the adapter" });
  const found = await Device.open(choices);
  device = found;
  // One that is lost while nothing runs on it would be noticed with the next request only.
  void found.gpu.lost.then(() => {
    try {
      found.check();
    } catch (error) {
      tellFailure(error);
    }
  });
  return found;
}

/** Gives back what the model before had; a device is opened once. */
function forget(): void {
  session?.free();
  session = undefined;
  own = undefined;
}

async function open({ device: choices, weights }: Extract<Request, { kind: "open" }>): Promise<void> {
  const gpu = await opened(choices);
  forget();
  say({ kind: "working", work: "loading the model" });
  const files = await Promise.all(MODEL_FILES.map(fetched));
  const folder = memoryFolder("base", files);
  const start =
    weights &&
    memoryFolder(
      "start",
      files.map(([name, content]) => [name, name === WEIGHTS ? weights : content]),
    );
  session = await Session.whole(gpu, folder, start);
  tellOpened(session);
}

async function fetched(name: string): Promise<GivenFile> {
  const response = await fetch(new URL(`model/${name}`, import.meta.url));
  if (!response.ok) throw new KtoError(`The host of this page does not give model/${name} (${response.status}).`, 7);
  return [name, await response.blob()];
}

async function openOwn(request: Extract<Request, { kind: "openOwn" }>): Promise<void> {
  const gpu = await opened(request.device);
  forget();
  say({ kind: "working", work: "loading the model" });
  const folder = memoryFolder("own", request.model);
  const adapter = request.adapter && memoryFolder("adapter", request.adapter);
  const [file] = request.feedback;
  const next = await Session.withAdapter(gpu, folder, adapter ? { folder: adapter } : { rank: request.rank }, warn);
  session = next;
  say({ kind: "working", work: "reading the feedback" });
  const rows = await next.rows(`${memoryFolder("feedback", [request.feedback])}/${file}`, warn);
  own = { ...rows, name: request.name };
  tellOpened(next);
}

function tellOpened({ policy }: Session): void {
  const up = own?.examples.filter(({ label }) => label).length ?? 0;
  say({
    kind: "opened",
    opened: {
      parameters: policy.layout.parameterCount,
      adapterParameters: policy.adapter?.parameterCount,
      adapter: policy.device.description,
      isSoftware: policy.device.isSoftware,
      feedback: own && { up, down: own.examples.length - up, prompts: own.prompts },
    },
  });
}

function present(): Session {
  if (session === undefined) throw new KtoError("There is no model yet.", 2);
  return session;
}

async function tell(telling: Telling, step?: number): Promise<void> {
  const { asked, seed, tokens } = telling;
  const at = step === undefined ? {} : { step };
  const now = new Map<number, Told>();
  let last = 0;
  const onToken = (told: Told) => {
    now.set(told.id, told);
    if (performance.now() - last < APART_MS) return;
    last = performance.now();
    say({ kind: "told", told: [...now.values()], isWhole: false, ...at });
  };
  say({ kind: "told", told: await present().tell(asked, seed, tokens, { onToken }), isWhole: true, ...at });
}

async function train({ thumbs, choices, watched }: Extract<Request, { kind: "train" }>): Promise<void> {
  const current = present();
  const every = Math.max(1, Math.round(choices.max_steps / TELLINGS));
  const onStep = async ({ step, totalSteps, metrics = {}, examples }: TrainingStep) => {
    say({ kind: "step", step, totalSteps, metrics, examples });
    if (step % every === 0 || step === totalSteps) await tell(watched, step);
  };
  const rows = own?.examples ?? thumbs.map((thumb) => ({ ...thumb }));
  say({ kind: "working", work: "preparing the training" });
  const folder = memoryFolder("trained", []);
  const steps = await current.train({ examples: rows, choices, onStep, onWarning: warn }, folder);
  const name = own?.name;
  const files = filesInMemory(folder);
  say({ kind: "trained", steps, files: name === undefined ? files : await Promise.all(files.map(namingBase(name))) });
}

/** An adapter's configuration names its base, which is no folder in memory to whoever loads it. */
function namingBase(name: string): (file: GivenFile) => Promise<GivenFile> {
  return async ([path, content]) => {
    if (path !== "adapter_config.json") return [path, content];
    const config: unknown = JSON.parse(await content.text());
    const named = { ...(config as object), base_model_name_or_path: name };
    return [path, new Blob([`${JSON.stringify(named, null, 2)}\n`])];
  };
}

async function answer(request: Request): Promise<void> {
  if (request.kind === "open") await open(request);
  else if (request.kind === "openOwn") await openOwn(request);
  else if (request.kind === "tell") await tell(request.telling);
  else if (request.kind === "train") await train(request);
}

/** Kernels are compiled when they are first needed, which takes seconds: then it is said how far that is. */
function tellingCompiling(): () => void {
  const clock = setInterval(() => {
    const compiling = device?.compiling;
    if (compiling) say({ kind: "working", work: "compiling kernels", done: compiling.done, total: compiling.asked });
  }, 500);
  return () => clearInterval(clock);
}

function tellFailure(error: unknown): void {
  const sentence = error instanceof Error ? error.message : String(error);
  say({ kind: "failed", sentence, isLost: error instanceof DeviceLostError, isBug: !(error instanceof KtoError) });
}

let queue: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }) => {
  if (data.kind === "stop") {
    session?.stop();
    return;
  }
  queue = queue.then(async () => {
    const end = tellingCompiling();
    try {
      await answer(data);
      say({ kind: "done" });
    } catch (error) {
      tellFailure(error);
    } finally {
      end();
    }
  });
};
