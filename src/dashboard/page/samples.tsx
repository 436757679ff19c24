/** What the model said to the same prompts before training and says now, side by side, with differences marked. */
import { useEffect, useState } from "preact/hooks";
import type { SamplesAnswer } from "../protocol.ts";
import { samplesOf } from "./client.ts";
import type { ShownRun } from "./shown-run.ts";
import { type Word, wordDifferences } from "./word-differences.ts";

export function Samples({ shown: { run, metrics }, isNamed }: { readonly shown: ShownRun; readonly isNamed: boolean }) {
  const [found, setFound] = useState<SamplesAnswer>();
  const lines = metrics?.lines;
  useEffect(() => {
    const ending = new AbortController();
    samplesOf(run.id, ending.signal).then(setFound, () => undefined);
    return () => ending.abort();
  }, [run.id, lines]);
  if (found === undefined || found.samples.length === 0) return null;
  const title = `Samples${isNamed ? ` of ${run.name}` : ""}`;
  return (
    <section class="samples" aria-label={title}>
      <h2>{title}</h2>
      <p class="faint">What the model says to the same prompts; words that the other text lacks are marked.</p>
      {found.samples.map(({ index, prompt, first, last }) => {
        const words = wordDifferences(first, last);
        return (
          <article key={index}>
            <h3>{prompt}</h3>
            <div class="pair">
              <Said title={`Update ${found.first}`} words={words.first} />
              <Said title={`Update ${found.last}`} words={words.last} />
            </div>
          </article>
        );
      })}
    </section>
  );
}

/** A text with the words marked that another one has not. */
export function Said({ title, words }: { readonly title: string; readonly words: readonly Word[] }) {
  return (
    <div>
      <h4>{title}</h4>
      <p>{words.map(({ text, isOwn }, at) => (isOwn ? <mark key={at}>{text}</mark> : <span key={at}>{text}</span>))}</p>
    </div>
  );
}
