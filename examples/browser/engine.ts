/** The page's side of the worker: starts it, asks it, and keeps what it answers as state. */
import { useEffect, useReducer, useRef } from "preact/hooks";
import type { GivenFile } from "../../src/browser.ts";
import { trainingOpenings } from "../quickstart/openings.ts";
import type { Asked, DeviceChoices, Reply, Request, Telling, TrainingChoices } from "./protocol.ts";
import { next, START, type State, thumbsOf } from "./state.ts";

export const MODEL_NAME = "stories260K";

/** A visitor's model with its feedback. */
export interface OwnModel {
  readonly name: string;
  readonly model: readonly GivenFile[];
  readonly feedback: GivenFile;
  readonly rank: number;
  readonly adapter?: readonly GivenFile[];
}

export interface Engine {
  readonly state: State;
  /** Opens the page's own model, as it was or with these weights; a worker whose device was lost is replaced. */
  open(weights?: Blob): void;
  openOwn(own: OwnModel): void;
  /** Tells so many new stories of so many tokens; of a visitor's model the watched prompts. */
  tell(count: number, tokens: number): void;
  train(choices: TrainingChoices): void;
  stop(): void;
  thumb(id: number, label: boolean | undefined): void;
}

const NOTHING: Telling = { asked: [], seed: 1, tokens: 1 };

/** How long what is watched of a visitor's model gets, in tokens. */
const OWN_TOKENS = 48;

export function useEngine(): Engine {
  const [state, dispatch] = useReducer(next, START);
  const worker = useRef<Worker>();
  /** Of the next story, which is also where its opening stands in the list. */
  const stories = useRef(0);

  const start = (): Worker => {
    worker.current?.terminate();
    const started = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    const replied = (reply: Reply) => dispatch({ kind: "replied", reply });
    started.onmessage = ({ data }: MessageEvent<Reply>) => replied(data);
    started.onerror = (event) => {
      const sentence = `The worker of this page does not run: ${event.message || "its file cannot be loaded"}.`;
      replied({ kind: "failed", sentence, isLost: true, isBug: false });
    };
    worker.current = started;
    return started;
  };
  const ask = (request: Request, name?: string) => {
    dispatch({ kind: "asked", request, ...(name === undefined ? {} : { name }) });
    const isOpening = request.kind === "open" || request.kind === "openOwn";
    // The next model goes on with the device and its compiled kernels. After a failure, or amid other work, a new worker
    // begins, so that what the last one held is gone for certain.
    const isNew = isOpening && (state.problem !== undefined || state.task !== undefined);
    (isNew ? start() : (worker.current ?? start())).postMessage(request);
  };
  const open = (weights?: Blob) => ask({ kind: "open", device: deviceChoices(), weights }, MODEL_NAME);
  useEffect(() => {
    open();
    return () => worker.current?.terminate();
  }, []);
  return {
    state,
    open,
    openOwn: (own) => ask({ kind: "openOwn", device: deviceChoices(), ...own }, own.name),
    tell: (count, tokens) => {
      const prompts = state.opened?.feedback?.prompts;
      const asked = prompts ?? newStories(stories.current, count);
      if (prompts === undefined) stories.current += count;
      const seed = prompts ? 1 : 1 + (asked[0]?.id ?? 0);
      ask({ kind: "tell", telling: { asked, seed, tokens: prompts ? OWN_TOKENS : tokens } });
    },
    train: (choices) => {
      ask({ kind: "train", thumbs: thumbsOf(state), choices, watched: state.watched ?? NOTHING });
    },
    stop: () => ask({ kind: "stop" }),
    thumb: (id, label) => dispatch({ kind: "thumb", id, label }),
  };
}

function newStories(first: number, count: number): Asked[] {
  return Array.from({ length: count }, (_, at) => {
    const id = first + at;
    return { id, prompt: trainingOpenings[id % trainingOpenings.length] ?? "Once upon a time," };
  });
}

/** What the page's address asks for. */
function deviceChoices(): DeviceChoices {
  const asked = new URLSearchParams(location.search);
  const [tuning, features] = [asked.get("tuning"), asked.get("features")];
  return {
    ...(tuning === "off" || tuning === "on" ? { tuning } : {}),
    ...(features === "core" || features === "all" ? { features } : {}),
  };
}
