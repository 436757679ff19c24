/** Curves of metrics that belong together, of every run that is shown. Cursor and zoom are common to all plots. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { type ShownRun, shortName } from "./shown-run.ts";
import { colors, useTheme } from "./theme.ts";
import { compact, smoothed } from "./value-picture.ts";

const HEIGHT = 220;
/** Between ticks of updates. */
const WHOLE_STEPS = Array.from({ length: 9 }, (_, power) => [1, 2, 5].map((factor) => factor * 10 ** power)).flat();
const DASHES = [[], [6, 4], [2, 3], [10, 4, 2, 4]];

/** The range of updates that is shown; undefined for all. */
export type Zoom = readonly [number, number] | undefined;

interface PlotProps {
  readonly title: string;
  readonly names: readonly string[];
  readonly shown: readonly ShownRun[];
  /** Share of what went before in a smoothed value, from 0. */
  readonly smoothing: number;
  readonly isLog: boolean;
  readonly zoom: Zoom;
  readonly onZoom: (zoom: Zoom) => void;
}

export function Plot({ title, names, shown, smoothing, isLog, zoom, onZoom }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  const zoomed = useRef<Zoom>();
  zoomed.current = zoom;
  const theme = useTheme();
  /** What a screen reader says of what a key did. */
  const [said, setSaid] = useState("");
  const lines = shown.flatMap((one, at) =>
    names.flatMap((name, which) => {
      const series = one.metrics?.series[name];
      return series === undefined ? [] : [{ one, at, name, which, series }];
    }),
  );
  const several = shown.length > 1;
  // The list of runs comes often, and with it a new rendering; the points of a picture are others only with new metrics.
  const state = shown.map(({ run, metrics }) => `${run.id} ${metrics?.generation} ${metrics?.lines}`).join();
  const data = useMemo(
    () =>
      uPlot.join(
        lines.map(({ series }) => [
          [...series.steps],
          smoothing > 0 ? smoothed(series.values, smoothing) : [...series.values],
        ]),
      ),
    [state, smoothing, names.join()],
  );
  // What a picture is made of; new points alone do not make a new one, so that cursor and zoom stay.
  const scale: uPlot.Scale = isLog ? logScale(lines.flatMap(({ series }) => series.values)) : { range: linearRange };
  const { distr } = scale;
  const kind = JSON.stringify([lines.map(({ one, name }) => [one.run.id, one.run.name, name]), distr, theme, title]);
  useEffect(() => {
    if (place.current === null) return;
    const palette = colors();
    const colorAt = (one: ShownRun, which: number) =>
      palette.series[(several ? one.color : which) % palette.series.length] ?? palette.text;
    const showAll = () => {
      onZoom(undefined);
      return null;
    };
    const axis = { stroke: palette.text, grid: { stroke: palette.grid, width: 1 }, ticks: { stroke: palette.grid } };
    const made = new uPlot(
      {
        width: place.current.clientWidth,
        height: HEIGHT,
        cursor: {
          sync: { key: "curves" },
          drag: { x: true, y: false, setScale: false },
          bind: { dblclick: () => () => showAll() },
        },
        scales: {
          x: { time: false, range: (_, min, max) => [...(zoomed.current ?? [min, max])] as [number, number] },
          y: scale,
        },
        axes: [
          { ...axis, incrs: WHOLE_STEPS, values: (_, splits) => splits.map(compact) },
          { ...axis, size: 62, values: (_, splits) => splits.map(compact) },
        ],
        legend: { live: true },
        series: [
          { label: "update", value: (_: uPlot, step: number | null) => step ?? "–" },
          ...lines.map(({ one, name, which }) => ({
            label: labelOf(one, name, several),
            stroke: colorAt(one, which),
            dash: several ? (DASHES[which % DASHES.length] ?? []) : [],
            width: 1.5,
            spanGaps: true,
            // A line needs two points to be seen.
            points: { show: (plot: uPlot) => name.startsWith("eval_") || plot.data[0].length === 1 },
            value: (_: uPlot, value: number | null) => shownValue(value),
          })),
        ],
        bands: lines.flatMap(({ one, name, which }, low) => {
          const high = lines.findIndex((other) => other.one === one && other.name === name.replace(/low$/, "high"));
          if (!name.endsWith("/low") || high < 0) return [];
          return [{ series: [high + 1, low + 1] as [number, number], fill: `${colorAt(one, which)}30` }];
        }),
        hooks: {
          setSelect: [
            ({ select, posToVal }) => {
              if (select.width < 3) return;
              onZoom([posToVal(select.left, "x"), posToVal(select.left + select.width, "x")]);
              made.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            },
          ],
        },
      },
      data,
      place.current,
    );
    plot.current = made;
    made.root.querySelector("table")?.setAttribute("aria-label", `${title}: values at the cursor`);
    const resized = new ResizeObserver(() => {
      if (place.current) made.setSize({ width: place.current.clientWidth, height: HEIGHT });
    });
    resized.observe(place.current);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [kind]);
  useEffect(() => plot.current?.setData(data), [data, zoom]);
  const onKeyDown = (event: KeyboardEvent) => {
    const steps = data[0];
    const [first = 0, last = 1] = zoom ?? [steps[0] ?? 0, steps.at(-1) ?? 1];
    // The cursor stays among the updates that are to be seen.
    const seen = { from: steps.findIndex((step) => step >= first), to: steps.findLastIndex((step) => step <= last) };
    const now = plot.current?.cursor.idx ?? seen.to;
    const middle = steps[now] ?? (first + last) / 2;
    const around = (share: number): Zoom => [middle - (middle - first) * share, middle + (last - middle) * share];
    const show = (next: Zoom) => {
      onZoom(next);
      const [from, to] = next ?? [steps[0] ?? 0, steps.at(-1) ?? 0];
      setSaid(`updates ${Math.ceil(from)} to ${Math.floor(to)}`);
    };
    const toLeft = event.key === "ArrowLeft";
    if (event.shiftKey && zoom && (toLeft || event.key === "ArrowRight")) {
      const by = ((toLeft ? -1 : 1) * (last - first)) / 4;
      show([first + by, last + by]);
    } else if (/^[1-9]$/.test(event.key)) {
      const line = plot.current?.series[Number(event.key)];
      if (line === undefined) return;
      const isShown = line.show === false;
      plot.current?.setSeries(Number(event.key), { show: isShown });
      setSaid(`${line.label} ${isShown ? "shown" : "hidden"}`);
    } else if (toLeft || event.key === "ArrowRight") {
      const next = Math.min(seen.to, Math.max(seen.from, now + (toLeft ? -1 : 1)));
      plot.current?.setCursor({ left: plot.current.valToPos(steps[next] ?? 0, "x"), top: 10 });
      const values = lines.map(({ one, name }, at) => {
        return `${labelOf(one, name, several)} ${shownValue(data[at + 1]?.[next])}`;
      });
      setSaid([`update ${steps[next]}`, ...values].join(", "));
    } else if (event.key === "+") show(around(0.7));
    else if (event.key === "-") show(around(1.4));
    else if (event.key === "0" || event.key === "Escape") show(undefined);
    else return;
    event.preventDefault();
  };
  const help = "arrow keys move the cursor, plus and minus zoom, 0 shows all, 1 to 9 hide and show a line";
  return (
    <figure
      aria-label={title}
      data-points={data[0].length}
      data-range={(zoom ?? [data[0][0], data[0].at(-1)]).join(" ")}
    >
      <figcaption>{title}</figcaption>
      <div
        ref={place}
        class="plot"
        role="application"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the keys move cursor and zoom
        tabIndex={0}
        aria-label={`${title}: ${help}`}
        onKeyDown={onKeyDown}
      />
      <p class="said" aria-live="polite">
        {said}
      </p>
    </figure>
  );
}

/** A line's name; with several runs the run's too. */
function labelOf({ run }: ShownRun, metric: string, several: boolean): string {
  return several ? `${shortName(run.name)} ${metric}` : metric;
}

function shownValue(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : value.toPrecision(4);
}

/** uPlot's own range, but for a metric that never changes: uPlot would show a 0 in a range from 0 to 100. */
function linearRange(_: uPlot, low: number, high: number): [number, number] {
  if (low === high) return [low - 1, high + 1];
  const [from, to] = uPlot.rangeNum(low, high, 0.1, true);
  return [from ?? low, to ?? high];
}

/**
 * The scale of values that differ in their magnitude: logarithmic or, where some are not above 0, the inverse hyperbolic
 * sine, which is linear around 0 and logarithmic far from it.
 */
function logScale(values: readonly number[]): uPlot.Scale {
  const isPositive = values.every((value) => value > 0);
  if (isPositive) return { distr: 3, log: 10 };
  const most = values.reduce((highest, value) => Math.max(highest, Math.abs(value)), 0);
  return { distr: 4, asinh: most > 0 ? most / 100 : 1 };
}
