/** The whole page: which runs are shown, how, and what of them. */
import type { ComponentChild } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { RunSummary } from "../protocol.ts";
import { exampleStepsOf, followRuns, metricsOf } from "./client.ts";
import { Curves } from "./curves.tsx";
import { Events } from "./events.tsx";
import { Configuration } from "./facts.tsx";
import { RewardSpread } from "./reward-spread.tsx";
import { Rows } from "./rows.tsx";
import { Samples } from "./samples.tsx";
import { Scores } from "./scores.tsx";
import { COLORS, colorOf, type ShownRun } from "./shown-run.ts";
import { ValueFunction } from "./value-function.tsx";

/** Runs that are shown side by side at most. */
const MOST_SHOWN = COLORS;

/** The parts of the page, by the names to which its links lead. */
const PARTS = [
  ["now", "Now"],
  ["value-function", "Value function"],
  ["rewards", "Rewards"],
  ["rows", "Rows"],
  ["samples", "Samples"],
  ["curves", "Curves"],
  ["configuration", "Configuration"],
  ["events", "Events"],
] as const;

export function App() {
  const [runs, setRuns] = useState<readonly RunSummary[]>();
  const [isThere, setIsThere] = useState(true);
  const [chosen, setChosen] = useState<readonly string[]>();
  const [smoothing, setSmoothing] = useState(0);
  const [isLog, setIsLog] = useState(false);
  useEffect(() => followRuns(setRuns, setIsThere), []);
  const ids = chosen ?? (runs ? firstChoice(runs) : []);
  const shown = useRuns(runs ?? [], ids);
  const toggle = (id: string) => {
    setChosen(ids.includes(id) ? ids.filter((other) => other !== id) : [...ids, id].slice(-MOST_SHOWN));
  };
  const each = (part: (one: { readonly shown: ShownRun; readonly isNamed: boolean }) => ComponentChild) =>
    shown.map((one) => part({ shown: one, isNamed: shown.length > 1 }));
  return (
    <>
      <header>
        <h1>kto dashboard</h1>
        <p role="status">{isThere ? "" : "The server is away; the page goes on when it is back."}</p>
      </header>
      <nav aria-label="Runs">
        <h2>Runs</h2>
        {runs?.length === 0 ? <p>No run has written its metrics.jsonl here yet.</p> : null}
        <ul>
          {runs?.map((run) => (
            <li key={run.id}>
              <label>
                <input type="checkbox" checked={ids.includes(run.id)} onChange={() => toggle(run.id)} />
                <span class={`swatch color-${colorOf(run.id)} ${ids.includes(run.id) ? "" : "off"}`} />
                <span class="name">{run.name}</span>{" "}
                <span class="state">
                  {run.running ? "running" : "ended"}, update {run.step}
                  {run.warnings ? `, ${run.warnings === 1 ? "1 warning" : `${run.warnings} warnings`}` : ""}
                </span>
              </label>
            </li>
          ))}
        </ul>
        <fieldset>
          <legend>Curves</legend>
          <label>
            Smoothing{" "}
            <input
              type="range"
              min="0"
              max="0.98"
              step="0.02"
              value={smoothing}
              onInput={(event) => setSmoothing(Number(event.currentTarget.value))}
            />
          </label>
          <label>
            <input type="checkbox" checked={isLog} onChange={(event) => setIsLog(event.currentTarget.checked)} /> Log
            scale
          </label>
        </fieldset>
      </nav>
      <main>
        {shown.map(({ run }) =>
          run.verdict ? (
            <p key={run.id} class={`verdict ${run.verdict.outcome}`}>
              {shown.length > 1 ? <b>{run.name}: </b> : null}
              {run.verdict.text}
            </p>
          ) : null,
        )}
        <nav class="parts" aria-label="Parts of the page">
          {PARTS.map(([id, name]) => (
            <a key={id} href={`#${id}`}>
              {name}
            </a>
          ))}
        </nav>
        <div id="now">
          {each((one) => (
            <Scores key={one.shown.run.id} {...one} />
          ))}
        </div>
        <div id="value-function">
          {each((one) =>
            one.shown.exampleSteps.length > 0 ? (
              <ValueFunction key={one.shown.run.id} {...one} />
            ) : one.shown.metrics === undefined ? null : (
              <p key={one.shown.run.id} class="faint">
                {one.isNamed ? `${one.shown.run.name}: no` : "No"} examples are logged, so there is no value function,
                no spread of rewards and no rows: supervised fine-tuning has none, --no_log_examples leaves them out,
                and a run that has just begun has none yet.
              </p>
            ),
          )}
        </div>
        <div id="rewards">
          {each((one) => (
            <RewardSpread key={one.shown.run.id} {...one} />
          ))}
        </div>
        <div id="rows">
          {each((one) => (
            <Rows key={one.shown.run.id} {...one} />
          ))}
        </div>
        <div id="samples">
          {each((one) => (
            <Samples key={one.shown.run.id} {...one} />
          ))}
        </div>
        <div id="curves">
          <Curves shown={shown} smoothing={smoothing} isLog={isLog} />
        </div>
        <div id="configuration">{shown.length > 0 ? <Configuration shown={shown} /> : null}</div>
        <div id="events">
          {each((one) => (
            <Events key={one.shown.run.id} {...one} />
          ))}
        </div>
      </main>
    </>
  );
}

/** The runs that go on, or else the last one. */
function firstChoice(runs: readonly RunSummary[]): string[] {
  const running = runs.filter((run) => run.running);
  return (running.length > 0 ? running : runs.slice(-1)).map(({ id }) => id).slice(0, MOST_SHOWN);
}

/** The chosen runs with their metrics, asked for again where there is news of them. */
function useRuns(runs: readonly RunSummary[], ids: readonly string[]): ShownRun[] {
  const [known, setKnown] = useState<ReadonlyMap<string, Pick<ShownRun, "metrics" | "exampleSteps">>>(new Map());
  const wanted = runs.filter(({ id }) => ids.includes(id));
  const news = wanted.map(({ id, lines, generation }) => `${id} ${lines} ${generation}`).join();
  useEffect(() => {
    const ending = new AbortController();
    const { signal } = ending;
    for (const { id, lines, generation } of wanted) {
      const { metrics } = known.get(id) ?? {};
      if (metrics?.lines === lines && metrics.generation === generation) continue;
      Promise.all([metricsOf(id, signal), exampleStepsOf(id, signal)]).then(
        ([found, examples]) => {
          if (signal.aborted) return;
          setKnown((before) => new Map(before).set(id, { metrics: found, exampleSteps: examples?.steps ?? [] }));
        },
        () => undefined, // the server is away, or there is newer news
      );
    }
    return () => ending.abort();
  }, [news]);
  return useMemo(
    () =>
      wanted.map((run) => {
        const { metrics, exampleSteps = [] } = known.get(run.id) ?? {};
        return { run, metrics, exampleSteps, color: colorOf(run.id) };
      }),
    [news, known, runs],
  );
}
