/** Curves of every metric, in groups that open and close, one plot for metrics that belong together. */
import { Plot, type Zoom } from "./plot.tsx";
import type { ShownRun } from "./shown-run.ts";

interface Shared {
  readonly title: string;
  readonly names: readonly string[];
}

interface Group {
  readonly title: string;
  /** Whether a metric that is in no shared plot belongs here. */
  readonly takes: (name: string) => boolean;
  /** Plots of several metrics, or with a title that says more than the name. */
  readonly shared: readonly Shared[];
}

const MAIN: readonly Shared[] = [
  { title: "Loss", names: ["loss", "eval_loss"] },
  { title: "Rewards", names: ["rewards/chosen", "rewards/rejected", "rewards/margins", "eval_rewards/margins"] },
  { title: "Reference point z0, before and after the clamp", names: ["kl", "kl/unclamped"] },
  { title: "Accuracy", names: ["rewards/accuracies", "eval_rewards/accuracies", "mean_token_accuracy"] },
];
const GROUPS: readonly Group[] = [
  {
    title: "Learning",
    takes: (name) => ["grad_norm", "learning_rate", "entropy"].includes(name),
    shared: [
      ...MAIN,
      { title: "Log-probs of completions", names: ["logps/chosen", "logps/rejected"] },
      { title: "Saturated rows", names: ["saturated"] },
    ],
  },
  {
    title: "Validation",
    takes: (name) => name.startsWith("eval_"),
    shared: [
      {
        title: "Margin of the validation rows, with its 95% interval",
        names: ["eval_rewards/margins", "eval_rewards/margins/low", "eval_rewards/margins/high"],
      },
      { title: "Win rate", names: ["eval_win_rate", "eval_win_rate/low", "eval_win_rate/high"] },
      {
        title: "Prompts won, even and lost",
        names: ["eval_win_rate/wins", "eval_win_rate/ties", "eval_win_rate/losses"],
      },
    ],
  },
  {
    title: "Speed and memory",
    takes: (name) => name.includes("tokens"),
    shared: [
      { title: "Tokens per second", names: ["tokens_per_second"] },
      { title: "Device's share of the update's time", names: ["device_time_share"] },
    ],
  },
  {
    title: "Other metrics",
    takes: () => true,
    shared: [{ title: "Mean logits", names: ["logits/chosen", "logits/rejected"] }],
  },
];

/** How curves are shown; kept while the page shows something else. */
export interface CurveView {
  readonly smoothing: number;
  readonly isLog: boolean;
  readonly zoom: Zoom;
  /** Titles of the groups that are open. */
  readonly open: readonly string[];
}

export const FIRST_VIEW: CurveView = { smoothing: 0, isLog: false, zoom: undefined, open: ["Learning"] };

/** What becomes of a view; a plot keeps its listeners while the view changes, so they must not hold one. */
export type ViewChange = (view: CurveView) => CurveView;

interface CurvesProps {
  readonly shown: readonly ShownRun[];
  readonly view: CurveView;
  readonly onView: (change: ViewChange) => void;
  /** Whether only what says most is shown. */
  readonly isBrief?: boolean;
}

export function Curves({ shown, view, onView, isBrief = false }: CurvesProps) {
  const names = [...new Set(shown.flatMap(({ metrics }) => Object.keys(metrics?.series ?? {})))];
  const groups = isBrief ? [{ title: "Main", plots: present(MAIN, names) }] : grouped(names);
  const plots = (all: readonly Shared[]) => (
    <div class="curves">
      {all.map((plot) => (
        <Plot
          key={plot.title}
          {...plot}
          {...view}
          shown={shown}
          onZoom={(zoom) => onView((now) => ({ ...now, zoom }))}
        />
      ))}
    </div>
  );
  return (
    <section aria-label="Curves">
      <h2>Curves</h2>
      <Controls view={view} onView={onView} />
      {groups.length > 1
        ? groups.map(({ title, plots: own }) => {
            const isOpen = view.open.includes(title);
            const toggle = (opens: boolean) =>
              onView((now) => {
                if (now.open.includes(title) === opens) return now;
                return { ...now, open: opens ? [...now.open, title] : now.open.filter((one) => one !== title) };
              });
            return (
              <details key={title} class="group" open={isOpen} onToggle={(event) => toggle(event.currentTarget.open)}>
                <summary>
                  <h3>
                    {title} ({own.length})
                  </h3>
                </summary>
                {isOpen ? plots(own) : null}
              </details>
            );
          })
        : groups.map(({ plots: own }) => plots(own))}
    </section>
  );
}

function Controls({ view, onView }: Pick<CurvesProps, "view" | "onView">) {
  return (
    <>
      <fieldset class="controls">
        <legend>How curves are drawn</legend>
        <label>
          Smoothing{" "}
          <input
            type="range"
            min="0"
            max="0.98"
            step="0.02"
            value={view.smoothing}
            onInput={({ currentTarget: { value } }) => onView((now) => ({ ...now, smoothing: Number(value) }))}
          />
        </label>
        <label>
          <input
            type="checkbox"
            checked={view.isLog}
            onChange={({ currentTarget: { checked } }) => onView((now) => ({ ...now, isLog: checked }))}
          />{" "}
          Log scale
        </label>
      </fieldset>
      <details>
        <summary>Keys and mouse</summary>
        <p class="faint">
          On a curve, arrows move the cursor of all curves, + and − zoom, Shift with an arrow moves along, 0 shows all,
          1 to 9 hide and show a line; or drag over a range, and click twice to show all.
        </p>
      </details>
    </>
  );
}

/** The plots shared by several metrics that have anything to show. */
function present(shared: readonly Shared[], names: readonly string[]): Shared[] {
  return shared.flatMap(({ title, names: wanted }) => {
    const found = wanted.filter((name) => names.includes(name));
    return found.length > 0 ? [{ title, names: found }] : [];
  });
}

/** The groups that have plots. */
function grouped(names: readonly string[]): { readonly title: string; readonly plots: readonly Shared[] }[] {
  const taken = new Set(GROUPS.flatMap(({ shared }) => shared.flatMap((one) => one.names)));
  const bytes = names.filter((name) => name.startsWith("bytes/"));
  const others = names.filter((name) => !taken.has(name) && !bytes.includes(name) && name !== "epoch").sort();
  return GROUPS.flatMap((group) => {
    const own = others.filter((name) => GROUPS.find(({ takes }) => takes(name)) === group);
    const plots = [...present(group.shared, names), ...own.map((name) => ({ title: name, names: [name] }))];
    const hasMemory = group.title === "Speed and memory" && bytes.length > 0;
    if (hasMemory) plots.push({ title: "Device memory, bytes", names: bytes });
    return plots.length > 0 ? [{ title: group.title, plots }] : [];
  });
}
