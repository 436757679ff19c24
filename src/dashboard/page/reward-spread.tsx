/**
 * Histograms of the rewards of each class over the run: a column is one update or a range of them, the darker a cell the
 * more of the column's examples lie there; the line is the median.
 */
import type { RewardsAnswer } from "../protocol.ts";
import { useAnswer } from "./client.ts";
import type { ShownRun } from "./shown-run.ts";
import { compact, ticks } from "./value-picture.ts";

const SIZE = { width: 640, height: 240, left: 72, right: 16, top: 10, bottom: 44 } as const;

export function RewardSpread({ shown: { run }, isNamed }: { readonly shown: ShownRun; readonly isNamed: boolean }) {
  const answer = useAnswer(run, "rewards");
  if (answer === undefined || answer === null) return null;
  const title = `Rewards over the run${isNamed ? ` of ${run.name}` : ""}`;
  return (
    <section class="panel" aria-label={title}>
      <h2>{title}</h2>
      <p class="faint">
        A column is an update, or several; the stronger a cell, the more of its examples have that reward. The line is
        the median.
      </p>
      <Heat answer={answer} kind="up" title="Thumbs up" />
      <Heat answer={answer} kind="down" title="Thumbs down" />
      <details>
        <summary>Medians as a table</summary>
        <MedianTable answer={answer} />
      </details>
    </section>
  );
}

interface HeatProps {
  readonly answer: RewardsAnswer;
  readonly kind: "up" | "down";
  readonly title: string;
}

function Heat({ answer, kind, title }: HeatProps) {
  const { low, high, from, to } = answer;
  const { width, height, left, right, top, bottom } = SIZE;
  const [columns, medians] = [answer[kind], kind === "up" ? answer.upMedian : answer.downMedian];
  const [first = 0, last = 0] = [from[0], to.at(-1)];
  /** Where an update begins; its column ends where the next one begins. */
  const x = (step: number) => left + ((step - first) / (last - first + 1)) * (width - left - right);
  const y = (reward: number) => top + (1 - (reward - low) / (high - low)) * (height - top - bottom);
  const starts = [...from, last + 1];
  const cells = columns.flatMap((counts, column) => {
    const most = Math.max(1, ...counts);
    const step = (high - low) / counts.length;
    const [begin, end] = [x(starts[column] ?? 0), x(starts[column + 1] ?? 0)];
    return counts.flatMap((count, bin) => {
      if (count === 0) return [];
      const above = y(low + (bin + 1) * step);
      return [
        <rect
          key={`${column} ${bin}`}
          class={`bar ${kind}`}
          x={begin.toFixed(2)}
          y={above.toFixed(2)}
          width={Math.max(0.5, end - begin).toFixed(2)}
          height={(y(low + bin * step) - above).toFixed(2)}
          opacity={(0.12 + 0.68 * Math.sqrt(count / most)).toFixed(2)}
        />,
      ];
    });
  });
  const line = medians.flatMap((median, column) => {
    if (median === null) return [];
    const middle = (x(starts[column] ?? 0) + x(starts[column + 1] ?? 0)) / 2;
    return [`${middle.toFixed(1)} ${y(median).toFixed(1)}`];
  });
  const zero = low < 0 && high > 0 ? y(0) : undefined;
  const label = `${title}: rewards of updates ${first} to ${last}, from ${compact(low)} to ${compact(high)}; a table of the medians follows.`;
  return (
    <figure class="plain" aria-label={title}>
      <figcaption>{title}</figcaption>
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
        {cells}
        {zero === undefined ? null : <line class="reference" x1={left} x2={width - right} y1={zero} y2={zero} />}
        <path class="median" d={`M${line.join("L")}`} />
        {ticks(low, high, 5).map((reward) => (
          <text key={reward} class="tick" x={left - 8} y={y(reward) + 4} text-anchor="end">
            {compact(reward)}
          </text>
        ))}
        {ticks(first, last, 4)
          .filter(Number.isInteger)
          .map((step) => (
            <text key={step} class="tick" x={x(step + 0.5)} y={height - bottom + 18} text-anchor="middle">
              {compact(step)}
            </text>
          ))}
        <text class="tick" x={(left + width - right) / 2} y={height - 3} text-anchor="middle">
          update
        </text>
      </svg>
    </figure>
  );
}

function MedianTable({ answer: { from, to, upMedian, downMedian } }: { readonly answer: RewardsAnswer }) {
  const text = (value: number | null | undefined) => (typeof value === "number" ? value.toFixed(4) : "none");
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by the keyboard
    <section class="scroll" tabIndex={0} aria-label="Medians of the rewards">
      <table aria-label="Medians of the rewards">
        <thead>
          <tr>
            <th scope="col">updates</th>
            <th scope="col">thumbs up</th>
            <th scope="col">thumbs down</th>
          </tr>
        </thead>
        <tbody>
          {from.map((first, column) => (
            <tr key={first}>
              <td>{first === to[column] ? first : `${first} to ${to[column]}`}</td>
              <td>{text(upMedian[column])}</td>
              <td>{text(downMedian[column])}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
