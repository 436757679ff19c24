/** The whole page: which runs are shown, and which part of them. */
import type { ComponentChild } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { RunSummary } from "../protocol.ts";
import { answerState, PARTS, type PagePart } from "./asking.ts";
import { answerOf, followRuns, metricsOf } from "./client.ts";
import { Curves, type CurveView, FIRST_VIEW, type ViewChange } from "./curves.tsx";
import { Events } from "./events.tsx";
import { Configuration } from "./facts.tsx";
import { RewardSpread } from "./reward-spread.tsx";
import { Rows } from "./rows.tsx";
import { RunList } from "./run-list.tsx";
import { Samples } from "./samples.tsx";
import { Scores } from "./scores.tsx";
import { COLORS, colorOf, type ShownRun } from "./shown-run.ts";
import { Tabs } from "./tabs.tsx";
import { ValueFunction } from "./value-function.tsx";

/** Runs that are shown side by side at most. */
const MOST_SHOWN = COLORS;

const TABS = (Object.keys(PARTS) as PagePart[]).map((name) => ({ name, title: PARTS[name].title }));

export function App() {
  const [runs, setRuns] = useState<readonly RunSummary[]>();
  const [isThere, setIsThere] = useState(true);
  const [chosen, setChosen] = useState<readonly string[]>();
  const [view, setView] = useState(FIRST_VIEW);
  const [part, setPart] = usePart();
  useEffect(() => followRuns(setRuns, setIsThere), []);
  const there = chosen?.filter((id) => runs?.some((run) => run.id === id));
  // Where all that were chosen have been removed, it begins anew.
  const isGone = there?.length === 0 && chosen?.length !== 0;
  const ids = there && !isGone ? there : runs ? firstChoice(runs) : [];
  const shown = useRuns(runs ?? [], ids, part);
  const toggle = (id: string) => {
    setChosen(ids.includes(id) ? ids.filter((other) => other !== id) : [...ids, id].slice(-MOST_SHOWN));
  };
  return (
    <>
      <header>
        <button type="button" class="skip" onClick={skip}>
          Skip the list of runs
        </button>
        <h1>kto dashboard</h1>
        <p role="status">{isThere ? "" : "The server is away; the page goes on when it is back."}</p>
      </header>
      <RunList runs={runs} ids={ids} onToggle={toggle} />
      <main>
        {runs && runs.length > 0 && shown.length === 0 ? <p class="faint">Choose a run in the list.</p> : null}
        {shown.map(({ run }) =>
          run.fault ? (
            <p key={run.id} class="verdict no">
              {shown.length > 1 ? <b>{run.name}: </b> : null}
              {run.fault} What is known of the run is shown.
            </p>
          ) : null,
        )}
        {shown.map(({ run }) =>
          run.verdict ? (
            <p key={run.id} class={`verdict ${run.verdict.outcome}`}>
              {shown.length > 1 ? <b>{run.name}: </b> : null}
              {run.verdict.text}
            </p>
          ) : null,
        )}
        <Tabs label="Parts of the page" tabs={TABS} chosen={part} onChoose={setPart}>
          <Shown {...{ part, shown, view, onView: setView }} />
        </Tabs>
      </main>
    </>
  );
}

function skip(): void {
  document.querySelector<HTMLElement>("[role=tab][aria-selected=true]")?.focus();
}

interface ShownProps {
  readonly part: PagePart;
  readonly shown: readonly ShownRun[];
  readonly view: CurveView;
  readonly onView: (change: ViewChange) => void;
}

type OfRun = (one: { readonly shown: ShownRun; readonly isNamed: boolean }) => ComponentChild;

/** The part that was chosen; several runs stand side by side where there is room. */
function Shown({ part, shown, view, onView }: ShownProps) {
  const curves = { shown, view, onView };
  const each = (of: OfRun) => (
    <div class="side-by-side">{shown.map((one) => of({ shown: one, isNamed: shown.length > 1 }))}</div>
  );
  const withExamples = (of: OfRun) =>
    each((one) => (one.shown.run.examples ? of(one) : <NoExamples key={one.shown.run.id} {...one} />));
  switch (part) {
    case "overview":
      return (
        <>
          {each((one) => (
            <Scores key={one.shown.run.id} {...one} />
          ))}
          <Curves {...curves} isBrief />
        </>
      );
    case "value-function":
      return withExamples((one) => <ValueFunction key={one.shown.run.id} {...one} />);
    case "rewards":
      return withExamples((one) => <RewardSpread key={one.shown.run.id} {...one} />);
    case "rows":
      return withExamples((one) => <Rows key={one.shown.run.id} {...one} />);
    case "samples":
      return each((one) => <Samples key={one.shown.run.id} {...one} />);
    case "curves":
      return <Curves {...curves} />;
    case "configuration":
      return shown.length > 0 ? <Configuration shown={shown} /> : null;
    case "events":
      return each((one) => <Events key={one.shown.run.id} {...one} />);
  }
}

/** Says why there is no value function, no spread of rewards, and no row. */
function NoExamples({ shown: { run }, isNamed }: { readonly shown: ShownRun; readonly isNamed: boolean }) {
  return (
    <p class="faint">
      {isNamed ? `${run.name}: no` : "No"} examples are logged, so there is no value function, no spread of rewards and
      no rows: supervised fine-tuning has none, --no_log_examples leaves them out, and a run that has just begun has
      none yet.
    </p>
  );
}

/** The part that is shown, which is in the address too, so that a link or a reload leads to it. */
function usePart(): [PagePart, (part: PagePart) => void] {
  const named = (): PagePart => TABS.find(({ name }) => location.hash === `#${name}`)?.name ?? "overview";
  const [part, setPart] = useState(named);
  useEffect(() => {
    const changed = () => setPart(named());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const choose = (next: PagePart) => {
    history.replaceState(undefined, "", `#${next}`);
    setPart(next);
  };
  return [part, choose];
}

/** The runs that go on, or else the last one. */
function firstChoice(runs: readonly RunSummary[]): string[] {
  const running = runs.filter((run) => run.running);
  return (running.length > 0 ? running : runs.slice(-1)).map(({ id }) => id).slice(0, MOST_SHOWN);
}

/** What is known of a run, and of which state of it. */
interface Known extends Partial<Pick<ShownRun, "metrics" | "exampleSteps">> {
  readonly metricsState?: string;
  readonly examplesState?: string;
}

/** The chosen runs with what the part that is shown needs, asked for where there is news of it. */
function useRuns(runs: readonly RunSummary[], ids: readonly string[], part: PagePart): ShownRun[] {
  const [known, setKnown] = useState<ReadonlyMap<string, Known>>(new Map());
  const wanted = runs.filter(({ id }) => ids.includes(id));
  const asks: readonly string[] = PARTS[part].asks;
  const word = (["metrics", "examples"] as const).find((one) => asks.includes(one));
  const news = wanted.map((run) => `${run.id} ${word && answerState(word, run)}`).join();
  useEffect(() => {
    const ending = new AbortController();
    const { signal } = ending;
    const keep = (id: string, found: Known) => {
      if (!signal.aborted) setKnown((before) => new Map(before).set(id, { ...before.get(id), ...found }));
    };
    // The server may be away, or there may be newer news.
    const failed = () => undefined;
    for (const run of wanted) {
      if (word === undefined) break;
      const [own, state] = [known.get(run.id), answerState(word, run)];
      if (word === "metrics" && own?.metricsState !== state) {
        const found = metricsOf(run.id, own?.metrics, signal);
        found.then((metrics) => metrics && keep(run.id, { metrics, metricsState: state }), failed);
      } else if (word === "examples" && own?.examplesState !== state) {
        const found = answerOf(run, "examples", signal);
        found.then((answer) => answer && keep(run.id, { exampleSteps: answer.steps, examplesState: state }), failed);
      }
    }
    return () => ending.abort();
  }, [news, word]);
  return useMemo(
    () =>
      wanted.map((run) => {
        const { metrics, exampleSteps = [] } = known.get(run.id) ?? {};
        return { run, metrics, exampleSteps, color: colorOf(run.id) };
      }),
    [known, runs, ids.join()],
  );
}
