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

async function get<T>(path: string, signal: AbortSignal): Promise<T | undefined> {
  const response = await fetch(path, { signal });
  return response.ok ? ((await response.json()) as T) : undefined;
}

export function metricsOf(id: string, signal: AbortSignal): Promise<MetricsAnswer | undefined> {
  return get(`/api/runs/${id}/metrics`, signal);
}

export function exampleStepsOf(id: string, signal: AbortSignal): Promise<ExamplesAnswer | undefined> {
  return get(`/api/runs/${id}/examples`, signal);
}

export function samplesOf(id: string, signal: AbortSignal): Promise<SamplesAnswer | undefined> {
  return get(`/api/runs/${id}/samples`, signal);
}

export function examplesOf(id: string, step: number, signal: AbortSignal): Promise<ExampleLine | undefined> {
  return get(`/api/runs/${id}/examples/${step}`, signal);
}

/** What else is asked of a run, by its word in the address. */
interface Answers {
  readonly rewards: RewardsAnswer | null;
  readonly rows: RowsAnswer;
  readonly events: EventsAnswer;
  readonly facts: FactsAnswer;
}

/**
 * What a run answers now; undefined before the first answer.
 *
 * @param news changes where there may be another answer
 */
export function useAnswer<Word extends keyof Answers>(
  { id, generation, running }: RunSummary,
  word: Word,
  news: number | undefined,
): Answers[Word] | undefined {
  const [found, setFound] = useState<Answers[Word]>();
  useEffect(() => {
    const ending = new AbortController();
    get<Answers[Word]>(`/api/runs/${id}/${word}`, ending.signal).then(
      (answer) => answer !== undefined && setFound(answer),
      () => undefined, // the server is away, or there is newer news
    );
    return () => ending.abort();
  }, [id, word, generation, running, news]);
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
