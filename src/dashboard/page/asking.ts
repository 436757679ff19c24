/**
 * What the page asks of a run, and when: a part that is shown asks for its own words alone, and again only where the
 * list of runs tells of something new for them. Without the page's library, for scripts/dashboard-cost.ts too.
 */
import type { MetricSeries, MetricsAnswer, RunSummary } from "../protocol.ts";

/** The parts of the page, with what each asks of a run that is shown. */
export const PARTS = {
  overview: { title: "Overview", asks: ["metrics"] },
  "value-function": { title: "Value function", asks: ["examples"] },
  rewards: { title: "Rewards", asks: ["rewards"] },
  rows: { title: "Rows", asks: ["rows"] },
  samples: { title: "Samples", asks: ["samples"] },
  curves: { title: "Curves", asks: ["metrics"] },
  configuration: { title: "Configuration", asks: ["facts"] },
  events: { title: "Events", asks: ["events"] },
} as const satisfies Readonly<Record<string, { readonly title: string; readonly asks: readonly AskedWord[] }>>;

export type PagePart = keyof typeof PARTS;

/** What can be asked of a run, by its word in the address. */
export type AskedWord = keyof typeof STATES;

/** What in the list of runs says that a run would answer a word otherwise than before. */
const STATES = {
  metrics: ({ lines }: RunSummary) => lines,
  examples: ({ examples = 0 }: RunSummary) => examples,
  // Over the whole run, so that a few updates more hardly show, and the whole is gone through for each answer.
  rewards: (run: RunSummary) => noticed(run),
  rows: (run: RunSummary) => noticed(run),
  samples: ({ samples = 0 }: RunSummary) => samples,
  events: ({ events = 0 }: RunSummary) => events,
  facts: ({ running }: RunSummary) => String(running),
} as const;

/** The updates with examples; while a run goes on, in steps of a fiftieth of them. */
function noticed({ examples = 0, running }: RunSummary): string {
  return running && examples > 50 ? `about ${Math.floor(Math.log(examples) / Math.log(1.02))}` : String(examples);
}

/** Another text where a run may answer otherwise. */
export function answerState(word: AskedWord, run: RunSummary): string {
  return `${run.generation} ${STATES[word](run)}`;
}

/** Most points of a metric that the page keeps; beyond, it asks again for all of them, thinned. */
const MOST_HELD = 4000;

/** The address of a run's metrics, without the part that the page knows already. */
export function metricsPath(id: string, known: MetricsAnswer | undefined): string {
  const path = `/api/runs/${id}/metrics`;
  const isLong = Object.values(known?.series ?? {}).some(({ values }) => values.length > MOST_HELD);
  return known === undefined || isLong ? path : `${path}?from=${known.lines}&generation=${known.generation}`;
}

/** All that is known with an answer; undefined where the answer goes on from what is not known here. */
export function withNews(known: MetricsAnswer | undefined, answer: MetricsAnswer): MetricsAnswer | undefined {
  if (answer.from === 0) return answer;
  if (known?.lines !== answer.from || known.generation !== answer.generation) return undefined;
  const series: Record<string, MetricSeries> = { ...known.series };
  for (const [name, { steps, values }] of Object.entries(answer.series)) {
    const before = series[name];
    series[name] = { steps: [...(before?.steps ?? []), ...steps], values: [...(before?.values ?? []), ...values] };
  }
  return { ...answer, from: 0, series };
}
