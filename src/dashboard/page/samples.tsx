/** What the model said to the same prompts before training and says now, side by side, with differences marked. */
import { useMemo } from "preact/hooks";
import type { SamplesAnswer } from "../protocol.ts";
import { useAnswer } from "./client.ts";
import type { ShownRun } from "./shown-run.ts";
import { type Word, wordDifferences } from "./word-differences.ts";

/** Prompts that are shown at once; the others are one step away. */
const SHOWN = 5;

export function Samples({ shown: { run }, isNamed }: { readonly shown: ShownRun; readonly isNamed: boolean }) {
  const found = useAnswer(run, "samples");
  const title = `Samples${isNamed ? ` of ${run.name}` : ""}`;
  if (found === undefined) return null;
  if (found.samples.length === 0) return <p class="faint">{title}: none; eval_samples asks for them.</p>;
  const [some, others] = [found.samples.slice(0, SHOWN), found.samples.slice(SHOWN)];
  const asked = (sample: SamplesAnswer["samples"][number]) => (
    <Sample key={sample.index} sample={sample} updates={[found.first, found.last]} />
  );
  return (
    <section class="samples" aria-label={title}>
      <h2>{title}</h2>
      <p class="faint">What the model says to the same prompts; words that the other text lacks are marked.</p>
      {some.map(asked)}
      {others.length > 0 ? (
        <details>
          <summary>{others.length === 1 ? "1 more prompt" : `${others.length} more prompts`}</summary>
          {others.map(asked)}
        </details>
      ) : null}
    </section>
  );
}

interface SampleProps {
  readonly sample: SamplesAnswer["samples"][number];
  /** The first and the last one that has samples. */
  readonly updates: readonly [number, number];
}

function Sample({ sample: { prompt, first, last }, updates }: SampleProps) {
  const words = useMemo(() => wordDifferences(first, last), [first, last]);
  return (
    <article>
      <h3>{prompt}</h3>
      <div class="pair">
        <Said title={`Update ${updates[0]}`} words={words.first} />
        <Said title={`Update ${updates[1]}`} words={words.last} />
      </div>
    </article>
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
