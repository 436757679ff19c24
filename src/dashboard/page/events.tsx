/** What a run said: its warnings and errors, and all else, the newest first. */
import { useState } from "preact/hooks";
import { useAnswer } from "./client.ts";
import type { ShownRun } from "./shown-run.ts";

export function Events({ shown: { run }, isNamed }: { readonly shown: ShownRun; readonly isNamed: boolean }) {
  const answer = useAnswer(run, "events");
  const [onlyWarnings, setOnlyWarnings] = useState(false);
  const title = `Events and warnings${isNamed ? ` of ${run.name}` : ""}`;
  if (answer === undefined) return null;
  if (answer.count === 0) return <p class="faint">{title}: the run has told of none.</p>;
  const shown = answer.events.filter(({ level }) => !onlyWarnings || level !== "info");
  const left = answer.count - answer.events.length;
  return (
    <section class="panel events" aria-label={title}>
      <h2>{title}</h2>
      <label>
        <input
          type="checkbox"
          checked={onlyWarnings}
          onChange={(event) => setOnlyWarnings(event.currentTarget.checked)}
        />{" "}
        Warnings and errors alone ({run.warnings ?? 0})
      </label>
      {shown.length === 0 ? <p class="faint">None.</p> : null}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by the keyboard */}
      <ol class="scroll" tabIndex={0} aria-label={title}>
        {shown.map(({ step, time, level, text }, at) => (
          <li key={at} class={level}>
            <span class="faint">
              {timeOf(time)}, update {step}
            </span>{" "}
            {level === "info" ? null : <b>{level}: </b>}
            {text}
          </li>
        ))}
      </ol>
      {left > 0 ? <p class="faint">{left} more in events.jsonl.</p> : null}
    </section>
  );
}

/** The time of the day where it is today's, else the date too. */
function timeOf(text: string): string {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday ? time.toLocaleTimeString() : time.toLocaleString();
}
