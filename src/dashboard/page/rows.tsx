/** The rows of the feedback that stand out: the highest and the lowest rewards of each class, and what moved farthest. */
import type { RowsAnswer, StandingRow } from "../protocol.ts";
import { useAnswer } from "./client.ts";
import type { ShownRun } from "./shown-run.ts";

/** Characters of a text that are shown at once; the rest is one step away. */
const SHOWN = { prompt: 90, completion: 170 } as const;
const SPARK = { width: 64, height: 18 } as const;

export function Rows({ shown: { run }, isNamed }: { readonly shown: ShownRun; readonly isNamed: boolean }) {
  const answer = useAnswer(run, "rows");
  if (answer === undefined || answer.groups.length === 0) return null;
  const title = `Rows that stand out${isNamed ? ` of ${run.name}` : ""}`;
  return (
    <section class="panel rows" aria-label={title}>
      <h2>{title}</h2>
      <p class="faint">
        By the last logged reward of each of {answer.rows} rows, and how it moved since the row was logged first.
      </p>
      {answer.groups.map((group, at) => (
        <Group key={`${group.kind} ${group.label}`} group={group} isOpen={at === 0} />
      ))}
    </section>
  );
}

interface GroupProps {
  readonly group: RowsAnswer["groups"][number];
  /** At first. */
  readonly isOpen: boolean;
}

function Group({ group: { kind, label, rows }, isOpen }: GroupProps) {
  const thumbs = label === undefined ? "" : label ? ", thumbs up" : ", thumbs down";
  const names = { highest: "Highest rewards", lowest: "Lowest rewards", moved: "Moved farthest" };
  return (
    <details class="group" open={isOpen}>
      <summary>
        <h3>
          {names[kind]}
          {thumbs}
        </h3>
      </summary>
      <ol>
        {rows.map((row) => (
          <Row key={row.index} row={row} />
        ))}
      </ol>
    </details>
  );
}

function Row({ row: { index, label, rewards, text } }: { readonly row: StandingRow }) {
  const { steps, values } = rewards;
  const [first = 0, last = 0] = [values[0], values.at(-1)];
  const change =
    values.length > 1
      ? `${number(first)} → ${number(last)}, updates ${steps[0]} to ${steps.at(-1)}`
      : `${number(last)}, update ${steps[0]}`;
  return (
    <li>
      <p class="moved">
        <span class={label ? "up" : "down"}>{label ? "● thumb up" : "◆ thumb down"}</span> <b>row {index}</b>{" "}
        <span>{change}</span>
        {values.length > 1 ? <Spark values={values} /> : null}
      </p>
      {text === undefined ? <p class="faint">The run wrote no text of this row.</p> : <Text {...text} />}
    </li>
  );
}

function Text({ prompt, completion }: { readonly prompt: string; readonly completion: string }) {
  const isCut = prompt.length > SHOWN.prompt || completion.length > SHOWN.completion;
  const end = prompt.length > SHOWN.prompt ? `… ${prompt.slice(-SHOWN.prompt)}` : prompt;
  const beginning = completion.length > SHOWN.completion ? `${completion.slice(0, SHOWN.completion)} …` : completion;
  return (
    <>
      <p class="text">
        <span class="faint">{end}</span>
        <span>{beginning}</span>
      </p>
      {isCut ? (
        <details>
          <summary>All of it</summary>
          <p class="text">
            <span class="faint">{prompt}</span>
            <span>{completion}</span>
          </p>
        </details>
      ) : null}
    </>
  );
}

function Spark({ values }: { readonly values: readonly number[] }) {
  const { width, height } = SPARK;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (at: number) => 1 + (at / (values.length - 1)) * (width - 2);
  const y = (value: number) => (high > low ? 2 + (1 - (value - low) / (high - low)) * (height - 4) : height / 2);
  const path = values.map((value, at) => `${at === 0 ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return (
    <svg class="spark" viewBox={`0 0 ${width} ${height}`} width={width} height={height} aria-hidden="true">
      <path class="median" d={path} />
    </svg>
  );
}

function number(value: number): string {
  return value.toFixed(3);
}
