/** What training changes: the watched stories then and now, the value function, the curves. */
import { useCallback, useMemo, useState } from "preact/hooks";
import { Curves, FIRST_VIEW } from "../../src/dashboard/page/curves.tsx";
import { Said } from "../../src/dashboard/page/samples.tsx";
import type { ShownRun } from "../../src/dashboard/page/shown-run.ts";
import { ValueFunction } from "../../src/dashboard/page/value-function.tsx";
import { wordDifferences } from "../../src/dashboard/page/word-differences.ts";
import type { Told } from "./protocol.ts";
import { type State, stepsDone } from "./state.ts";

/** The curves that say most; a run on the command line has all of them. */
const CURVES = [
  ...["loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "kl", "kl/unclamped"],
  ...["rewards/accuracies", "logps/chosen", "logps/rejected"],
];

export function Changes({ state }: { readonly state: State }) {
  const { series, lines, before, now } = state;
  const step = stepsDone(state);
  const [view, setView] = useState(FIRST_VIEW);
  const shown = useMemo((): ShownRun => {
    const known = CURVES.flatMap((name) => (series[name] ? [[name, series[name]] as const] : []));
    return {
      run: { id: "r0", name: state.name, running: state.task === "train", lines: step, generation: 0, step },
      metrics: { lines: step, generation: 0, from: 0, series: Object.fromEntries(known) },
      exampleSteps: lines.map((line) => line.step),
      color: 0,
    };
  }, [series, lines]);
  const linesFrom = useCallback(
    async (_: string, wanted: number) => lines.find((line) => line.step === wanted),
    [lines],
  );
  if (lines.length === 0) return null;
  return (
    <>
      {now.step > before.step ? (
        <section class="samples" aria-labelledby="changed">
          <h2 id="changed">The same openings and random numbers, then and now</h2>
          {now.told.map((one) => (
            <Pair key={one.id} now={one} before={before.told.find(({ id }) => id === one.id)} {...{ state }} />
          ))}
        </section>
      ) : null}
      <ValueFunction shown={shown} isNamed={false} linesFrom={linesFrom} />
      <Curves shown={[shown]} view={view} onView={setView} />
    </>
  );
}

interface PairProps {
  readonly before: Told | undefined;
  readonly now: Told;
  readonly state: State;
}

function Pair({ before, now, state }: PairProps) {
  const words = wordDifferences(before?.text ?? "", now.text);
  return (
    <article>
      <h3>{now.prompt}</h3>
      <div class="pair">
        <Said title={`Update ${state.before.step}`} words={words.first} />
        <Said title={`Update ${state.now.step}`} words={words.last} />
      </div>
    </article>
  );
}
