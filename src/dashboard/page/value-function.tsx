/** The picture of this method: the value function with every example of an update on it, and a slider over the run. */
import { useEffect, useMemo, useState } from "preact/hooks";
import type { ExampleLine } from "../protocol.ts";
import { examplesOf } from "./client.ts";
import { RewardHistogram } from "./reward-histogram.tsx";
import type { ShownRun } from "./shown-run.ts";
import { type Picture, type PicturePoint, pictureOf, SATURATED_FROM } from "./value-picture.ts";

const SIZE = { width: 640, height: 352, left: 72, right: 16, top: 26, bottom: 56 } as const;

interface ValueFunctionProps {
  readonly shown: ShownRun;
  readonly isNamed: boolean;
  /** Where the examples of an update come from; by default the server of the dashboard. */
  readonly linesFrom?: typeof examplesOf;
}

export function ValueFunction({ shown: { run, exampleSteps }, isNamed, linesFrom = examplesOf }: ValueFunctionProps) {
  /** undefined follows the last update. */
  const [chosen, setChosen] = useState<number>();
  const at = Math.min(chosen ?? exampleSteps.length - 1, exampleSteps.length - 1);
  /** undefined before it is known which updates have examples. */
  const step = exampleSteps[at];
  const [line, setLine] = useState<ExampleLine>();
  useEffect(() => {
    if (step === undefined) return;
    const ending = new AbortController();
    linesFrom(run.id, step, ending.signal).then(
      (found) => found && setLine(found),
      () => undefined,
    );
    return () => ending.abort();
  }, [run.id, step]);
  const title = `Value function${isNamed ? ` of ${run.name}` : ""}`;
  return (
    <section class="value-function" aria-label={title}>
      <h2>{title}</h2>
      <label class="slider">
        Update {step ?? ""}
        <input
          type="range"
          min="0"
          max={Math.max(0, exampleSteps.length - 1)}
          value={Math.max(0, at)}
          aria-valuetext={`update ${step ?? ""}`}
          onInput={(event) => {
            const next = Number(event.currentTarget.value);
            setChosen(next === exampleSteps.length - 1 ? undefined : next);
          }}
        />
      </label>
      {line ? <Drawn line={line} /> : <p>Loading…</p>}
    </section>
  );
}

function Drawn({ line }: { readonly line: ExampleLine }) {
  const picture = useMemo(() => pictureOf(line), [line]);
  const saturated = picture.points.filter((point) => point.saturated);
  const ups = picture.points.filter(({ label }) => label).length;
  return (
    <>
      <ReferencePoints line={line} />
      <Chart picture={picture} step={line.step} />
      <RewardHistogram points={picture.points} />
      <p class="key">
        <span class="up">● thumbs up ({ups})</span>{" "}
        <span class="down">◆ thumbs down ({picture.points.length - ups})</span>
        {line.rows > picture.points.length ? ` of ${line.rows} rows of the update` : ""}. u is β times the log-ratio
        above z0 for thumbs up, below it for thumbs down; v is the weight of the class times sigmoid(u).
      </p>
      <details>
        <summary>
          {saturated.length} of {picture.points.length} rows are saturated: they hardly move the model any more
        </summary>
        <RowsTable points={saturated} />
      </details>
      <details>
        <summary>All rows of this picture</summary>
        <RowsTable points={picture.points} />
      </details>
    </>
  );
}

function ReferencePoints({ line }: { readonly line: ExampleLine }) {
  const [first] = line.z0;
  const [before] = line.z0_unclamped;
  if (line.z0.length !== 1) {
    return (
      <p>
        Reference points z0 of {line.z0.length} microbatches: {line.z0.map(text).join(", ")} (before the clamp at 0:{" "}
        {line.z0_unclamped.map(text).join(", ")}).
      </p>
    );
  }
  return (
    <p>
      Reference point z0 = <b>{text(first)}</b>
      {before === null || before === undefined
        ? ""
        : ` (before the clamp at 0: ${text(before)}, over ${line.pairs[0]} mismatched pairs)`}
    </p>
  );
}

function text(value: number | null | undefined): string {
  return value === null || value === undefined ? "none" : value.toFixed(4);
}

function Chart({ picture, step }: { readonly picture: Picture; readonly step: number }) {
  const { reach, top, points, curves } = picture;
  const { width, height, left, right, bottom } = SIZE;
  const x = (u: number) => left + ((u + reach) / (2 * reach)) * (width - left - right);
  const y = (v: number) => SIZE.top + (1 - v / top) * (height - SIZE.top - bottom);
  const path = (curve: readonly (readonly [number, number])[]) =>
    curve.map(([u, v], at) => `${at === 0 ? "M" : "L"}${x(u).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const ticksOfU = [-1, -0.5, 0, 0.5, 1].map((share) => share * reach);
  const ticksOfV = [0, 0.25, 0.5, 0.75, 1].map((share) => share * top);
  const shade = reach > SATURATED_FROM ? [-reach, SATURATED_FROM] : [];
  const label = `Value function at update ${step}: ${points.length} rows as points of u and v; a table follows.`;
  return (
    <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
      {shade.map((from) => (
        <rect
          key={from}
          class="saturated-zone"
          x={x(from)}
          y={SIZE.top}
          width={x(reach) - x(SATURATED_FROM)}
          height={height - SIZE.top - bottom}
        />
      ))}
      {ticksOfV.map((v) => (
        <g key={v}>
          <line class="grid" x1={left} x2={width - right} y1={y(v)} y2={y(v)} />
          <text class="tick" x={left - 8} y={y(v) + 4} text-anchor="end">
            {Number(v.toPrecision(3))}
          </text>
        </g>
      ))}
      {ticksOfU.map((u) => (
        <text key={u} class="tick" x={x(u)} y={height - bottom + 18} text-anchor="middle">
          {Number(u.toPrecision(3))}
        </text>
      ))}
      <line class="reference" x1={x(0)} x2={x(0)} y1={SIZE.top} y2={height - bottom} />
      {/* Where no curve comes: right of u = 0 both are above their middle. */}
      <text class="tick" x={x(0) + 6} y={height - bottom - 6}>
        r = z0
      </text>
      <path class="curve up" d={path(curves.desirable)} />
      <path class="curve down" d={path(curves.undesirable)} />
      {points.map((point, at) => (
        <Point key={at} point={point} x={x(point.u)} y={y(point.v)} />
      ))}
      <text class="axis" x={(left + width - right) / 2} y={height - 8} text-anchor="middle">
        u
      </text>
      <text class="axis" x={left + 4} y={16}>
        v
      </text>
    </svg>
  );
}

/** Classes differ in shape as well as in colour; a saturated row is hollow. */
function Point({ point, x, y }: { readonly point: PicturePoint; readonly x: number; readonly y: number }) {
  const { index, label, u, v, saturated } = point;
  const shape = label
    ? `M${x - 4.5} ${y}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0`
    : `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z`;
  return (
    <path
      class={`point ${label ? "up" : "down"} ${saturated ? "hollow" : ""}`}
      d={shape}
      data-index={index}
      data-u={u}
      data-v={v}
    >
      <title>{`row ${index}: u ${u.toFixed(3)}, v ${v.toFixed(3)}${saturated ? ", saturated" : ""}`}</title>
    </path>
  );
}

function RowsTable({ points }: { readonly points: readonly PicturePoint[] }) {
  const sorted = [...points].sort((a, b) => b.reward - a.reward);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by the keyboard
    <section class="scroll" tabIndex={0} aria-label="Rows">
      <table aria-label="Rows of the picture">
        <thead>
          <tr>
            {["row", "thumb", "reward", "u", "v"].map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.map(({ index, label, reward, u, v }, at) => (
            <tr key={at}>
              <td>{index}</td>
              <td>{label ? "up" : "down"}</td>
              <td>{reward.toFixed(4)}</td>
              <td>{u.toFixed(4)}</td>
              <td>{v.toFixed(4)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
