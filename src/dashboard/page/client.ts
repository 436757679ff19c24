/** What the page asks its server for, and the news that come from there. */
import { useEffect, useState } from "preact/hooks";
import type {
  EventsAnswer,
  ExampleLine,
  ExamplesAnswer,
  FactsAnswer,
  MetricsAnswer,
  RewardsAnswer,
  RowsAnswer,
  RunSummary,
  SamplesAnswer,
} from "../protocol.ts";
import { answerState, metricsPath, withNews } from "./asking.ts";

async function get<T>(path: string, signal: AbortSignal): Promise<T | undefined> {
  const response = await fetch(path, { signal });
  return response.ok ? ((await response.json()) as T) : undefined;
}

/** All metrics of a run, of which only those are sent that are not known. */
export async function metricsOf(
  id: string,
  known: MetricsAnswer | undefined,
  signal: AbortSignal,
): Promise<MetricsAnswer | undefined> {
  const answer = await get<MetricsAnswer>(metricsPath(id, known), signal);
  if (answer === undefined) return undefined;
  return withNews(known, answer) ?? (await get<MetricsAnswer>(metricsPath(id, undefined), signal));
}

export function examplesOf(id: string, step: number, signal: AbortSignal): Promise<ExampleLine | undefined> {
  return get(`/api/runs/${id}/examples/${step}`, signal);
}

/** What is asked of a run by a word alone. */
interface Answers {
  readonly examples: ExamplesAnswer;
  readonly rewards: RewardsAnswer | null;
  readonly rows: RowsAnswer;
  readonly samples: SamplesAnswer;
  readonly events: EventsAnswer;
  readonly facts: FactsAnswer;
}

export function answerOf<Word extends keyof Answers>(
  { id }: RunSummary,
  word: Word,
  signal: AbortSignal,
): Promise<Answers[Word] | undefined> {
  return get(`/api/runs/${id}/${word}`, signal);
}

/** What a run answers now; undefined before the first answer. */
export function useAnswer<Word extends keyof Answers>(run: RunSummary, word: Word): Answers[Word] | undefined {
  const [found, setFound] = useState<Answers[Word]>();
  useEffect(() => {
    const ending = new AbortController();
    answerOf(run, word, ending.signal).then(
      (answer) => answer !== undefined && setFound(answer),
      () => undefined, // the server is away, or there is newer news
    );
    return () => ending.abort();
  }, [run.id, word, answerState(word, run)]);
  return found;
}

/**
 * Follows the list of runs; the browser connects again where the server was away.
 *
 * @param onState whether the server is there
 * @returns a function that ends it
 */
export function followRuns(onRuns: (runs: readonly RunSummary[]) => void, onState: (isThere: boolean) => void) {
  const events = new EventSource("/api/events");
  events.addEventListener("runs", (event) => onRuns(JSON.parse(String(event.data)) as RunSummary[]));
  events.addEventListener("open", () => onState(true));
  events.addEventListener("error", () => onState(false));
  return () => events.close();
}
