/**
 * What the page knows, and how requests and the worker's replies change it. Plain data: nothing here talks to the
 * worker or draws.
 */
import type { GivenFile } from "../../src/browser.ts";
import type { ExampleLine, MetricSeries } from "../../src/dashboard/protocol.ts";
import type { Opened, Reply, Request, Telling, Thumb, Told } from "./protocol.ts";

/** Updates whose examples are kept for the picture of the value function. */
const MOST_LINES = 500;
const MOST_WARNINGS = 20;

/** A story with its thumb, which the visitor gives. */
export interface Story {
  readonly told: Told;
  readonly isWhole: boolean;
  readonly label: boolean | undefined;
}

export interface State {
  /** What the worker was asked for and has not answered. */
  readonly task: Request["kind"] | undefined;
  readonly work: Extract<Reply, { kind: "working" }> | undefined;
  readonly opened: Opened | undefined;
  /** The name of the model that is open. */
  readonly name: string;
  readonly problem: Extract<Reply, { kind: "failed" }> | undefined;
  readonly warnings: readonly string[];
  /** The newest first. */
  readonly stories: readonly Story[];
  /** What was told last, which is told again while the model is trained. */
  readonly watched: Telling | undefined;
  /** How the watched stories were told first, after so many updates, and how they are told now. */
  readonly before: { readonly step: number; readonly told: readonly Told[] };
  readonly now: { readonly step: number; readonly told: readonly Told[] };
  /** Updates of the trainings that ended. */
  readonly stepsBefore: number;
  readonly progress: { readonly step: number; readonly totalSteps: number } | undefined;
  readonly series: Readonly<Record<string, MetricSeries>>;
  readonly lines: readonly ExampleLine[];
  /** What the last training made. */
  readonly files: readonly GivenFile[];
}

export const START: State = {
  ...{ task: undefined, work: undefined, opened: undefined, name: "", problem: undefined, warnings: [], stories: [] },
  ...{ watched: undefined, before: { step: 0, told: [] }, now: { step: 0, told: [] }, stepsBefore: 0 },
  ...{ progress: undefined, series: {}, lines: [], files: [] },
};

export type Action =
  | { readonly kind: "asked"; readonly request: Request; readonly name?: string }
  | { readonly kind: "replied"; readonly reply: Reply }
  /** undefined takes it back. */
  | { readonly kind: "thumb"; readonly id: number; readonly label: boolean | undefined };

/** Stories that are watched while the model changes: enough to see it, few enough to be told often. */
export const MOST_WATCHED = 4;

export function next(state: State, action: Action): State {
  if (action.kind === "asked") return asked(state, action.request, action.name);
  if (action.kind === "replied") return replied(state, action.reply);
  const { id, label } = action;
  const stories = state.stories.map((story) => (story.told.id === id ? { ...story, label } : story));
  return { ...state, stories };
}

function asked(state: State, request: Request, name = state.name): State {
  const now = { ...state, task: request.kind, problem: undefined, work: undefined };
  if (request.kind === "open" || request.kind === "openOwn") {
    // The stories of a model that is opened again keep their thumbs, since these are what the visitor has made.
    const { stories } = request.kind === "open" && name === state.name ? state : START;
    return { ...START, stories, task: request.kind, name };
  }
  if (request.kind === "tell") {
    const { asked: all, seed, tokens } = request.telling;
    const step = stepsDone(state);
    const watched = { asked: all.slice(0, MOST_WATCHED), seed, tokens };
    return { ...now, watched, before: { step, told: [] }, now: { step, told: [] } };
  }
  return request.kind === "stop" ? state : now;
}

function replied(state: State, reply: Reply): State {
  if (reply.kind === "opened") return { ...state, opened: reply.opened };
  if (reply.kind === "working") return { ...state, work: reply };
  if (reply.kind === "warning") {
    return { ...state, warnings: [...state.warnings, reply.sentence].slice(-MOST_WARNINGS) };
  }
  if (reply.kind === "told") return told(state, reply);
  if (reply.kind === "step") {
    const step = state.stepsBefore + reply.step;
    const { metrics, examples, totalSteps } = reply;
    return {
      ...state,
      work: undefined,
      progress: { step: reply.step, totalSteps },
      series: withPoint(state.series, step, metrics),
      lines: examples ? [...state.lines, { ...examples, step }].slice(-MOST_LINES) : state.lines,
    };
  }
  if (reply.kind === "trained") {
    return { ...state, stepsBefore: state.stepsBefore + reply.steps, progress: undefined, files: reply.files };
  }
  const ended = { ...state, task: undefined, work: undefined };
  if (reply.kind === "done") return ended;
  // The updates of a training that failed have changed the model all the same.
  return { ...ended, problem: reply, stepsBefore: stepsDone(state), progress: undefined };
}

/** Whether there is a model that nothing goes on with. */
export function isFree({ opened, task, problem }: State): boolean {
  return opened !== undefined && task === undefined && problem?.isLost !== true;
}

/** Updates that the model has had. */
export function stepsDone({ stepsBefore, progress }: State): number {
  return stepsBefore + (progress?.step ?? 0);
}

function told(state: State, { told: stories, isWhole, step }: Extract<Reply, { kind: "told" }>): State {
  if (step !== undefined) return { ...state, now: { step: state.stepsBefore + step, told: stories } };
  const watchedIds = new Set(state.watched?.asked.map(({ id }) => id));
  const watched = stories.filter(({ id }) => watchedIds.has(id));
  const known = new Map(state.stories.map((story) => [story.told.id, story]));
  for (const one of stories) known.set(one.id, { told: one, isWhole, label: known.get(one.id)?.label });
  return {
    ...state,
    stories: [...known.values()].sort((a, b) => b.told.id - a.told.id),
    before: { ...state.before, told: watched },
    now: { ...state.now, told: watched },
  };
}

function withPoint(
  series: State["series"],
  step: number,
  metrics: Readonly<Record<string, number>>,
): Record<string, MetricSeries> {
  const known: Record<string, MetricSeries> = { ...series };
  for (const [name, value] of Object.entries(metrics)) {
    if (!Number.isFinite(value)) continue;
    const { steps = [], values = [] } = known[name] ?? {};
    known[name] = { steps: [...steps, step], values: [...values, value] };
  }
  return known;
}

/** The thumbs that were given, the oldest first, so that the same clicks give the same rows. */
export function thumbsOf({ stories }: Pick<State, "stories">): Thumb[] {
  return [...stories]
    .reverse()
    .flatMap(({ told: { promptIds, completionIds }, label, isWhole }) =>
      label === undefined || !isWhole || completionIds.length === 0 ? [] : [{ promptIds, completionIds, label }],
    );
}

/** Rows to train on: thumbs that were given, or those of a visitor's feedback. */
export function rowsOf(state: State): { readonly up: number; readonly down: number } {
  const { feedback } = state.opened ?? {};
  if (feedback) return feedback;
  const thumbs = thumbsOf(state);
  const up = thumbs.filter(({ label }) => label).length;
  return { up, down: thumbs.length - up };
}
