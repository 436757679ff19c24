/**
 * Line plots as SVG text, so that the curves of a run can be looked at without any program but a browser, on a phone
 * and on a dark page as well. Draws what it is given: no smoothing, no statistics. The same input gives the same text.
 */

export interface Series {
  readonly name: string;
  /** [x, y] in order of x; a y that is not finite leaves a gap. */
  readonly points: readonly (readonly [number, number])[];
}

/** One set of axes. */
export interface Panel {
  readonly title: string;
  readonly series: readonly Series[];
  /** Values that the y axis must reach at least, e.g. [0, 1] for shares. */
  readonly includeY?: readonly number[];
}

export interface Figure {
  readonly title: string;
  readonly xLabel: string;
  /** One below the other, so that a phone's width shows them at nearly their own size. */
  readonly panels: readonly Panel[];
}

/** Colours that stay apart for colour-blind readers (Okabe and Ito), in the order of the series. */
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const PANEL = { width: 440, height: 250 } as const;
const MARGIN = { left: 62, right: 16, top: 52, bottom: 48 } as const;
const HEADER = 40;
const TICKS = 5;

/** In a dark surrounding: a dark card, and lighter lines and words, which a white card's would be too dark for. */
const DARK_COLOURS: Readonly<Record<string, string>> = {
  "#ddd": "#3d444d",
  "#555": "#9198a1",
  "#0072B2": "#4aa8e8",
  "#D55E00": "#f0883e",
  "#009E73": "#3fb68b",
};
const STYLE = `<style>@media (prefers-color-scheme: dark) { rect { fill: #151b23; stroke: #3d444d } text { fill: #f0f6fc } ${Object.entries(
  DARK_COLOURS,
)
  .map(([light, dark]) => `[stroke="${light}"] { stroke: ${dark} }`)
  .join(" ")} }</style>`;

/** A standalone SVG document. Panels without a finite point say so. */
export function linePlots({ title, xLabel, panels }: Figure): string {
  const { width } = PANEL;
  const height = HEADER + panels.length * PANEL.height;
  const body = panels.map(
    (panel, index) =>
      `<g transform="translate(0 ${HEADER + index * PANEL.height})">\n${panelMarks(panel, xLabel)}\n</g>`,
  );
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="14" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    STYLE,
    `<rect x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="6" fill="white" stroke="#ddd"/>`,
    `<text x="${width / 2}" y="26" text-anchor="middle" font-size="16">${escapeXml(title)}</text>`,
    ...body,
    "</svg>",
  ].join("\n")}\n`;
}

function panelMarks({ title, series, includeY = [] }: Panel, xLabel: string): string {
  const finite = series.flatMap(({ points }) => points.filter(isFinitePoint));
  const left = MARGIN.left;
  const right = PANEL.width - MARGIN.right;
  const top = MARGIN.top;
  const bottom = PANEL.height - MARGIN.bottom;
  const middle = (left + right) / 2;
  const heading = `<text x="${middle}" y="16" text-anchor="middle" font-weight="bold">${escapeXml(title)}</text>`;
  if (finite.length === 0) {
    return `${heading}\n<text x="${middle}" y="${(top + bottom) / 2}" text-anchor="middle">no data</text>`;
  }
  const xAxis = axis(finite.map(([x]) => x));
  const yAxis = axis([...finite.map(([, y]) => y), ...includeY.filter(Number.isFinite)]);
  const xAt = (x: number) => round(left + ((x - xAxis.low) / (xAxis.high - xAxis.low)) * (right - left));
  const yAt = (y: number) => round(bottom - ((y - yAxis.low) / (yAxis.high - yAxis.low)) * (bottom - top));

  const grid = [
    ...yAxis.ticks.map(
      (tick) =>
        `<path d="M${left} ${yAt(tick)}H${right}" stroke="#ddd"/><text x="${left - 6}" y="${round(yAt(tick) + 5)}" text-anchor="end">${label(tick)}</text>`,
    ),
    ...xAxis.ticks.map(
      (tick) =>
        `<path d="M${xAt(tick)} ${bottom}v4" stroke="#555"/><text x="${xAt(tick)}" y="${bottom + 18}" text-anchor="middle">${label(tick)}</text>`,
    ),
    `<path d="M${left} ${top}V${bottom}H${right}" fill="none" stroke="#555"/>`,
    `<text x="${middle}" y="${bottom + 36}" text-anchor="middle">${escapeXml(xLabel)}</text>`,
  ];
  const lines = series.map(({ name, points }, index) => {
    const colour = COLOURS[index % COLOURS.length];
    const place = left + (index * (right - left)) / Math.max(1, series.length);
    const key = `<path d="M${round(place)} 33h14" stroke="${colour}" stroke-width="3"/><text x="${round(place + 18)}" y="38">${escapeXml(name)}</text>`;
    return `<path d="${pathOf(points, xAt, yAt)}" fill="none" stroke="${colour}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/>${key}`;
  });
  return [heading, ...grid, ...lines].join("\n");
}

/**
 * Moves where the line begins again after a gap; a point alone is a line of no length, which round caps make visible.
 */
function pathOf(points: Series["points"], xAt: (x: number) => number, yAt: (y: number) => number): string {
  let drawing = false;
  const commands: string[] = [];
  for (const point of points) {
    if (isFinitePoint(point)) {
      const place = `${xAt(point[0])} ${yAt(point[1])}`;
      commands.push(drawing ? `L${place}` : `M${place}L${place}`);
      drawing = true;
    } else drawing = false;
  }
  return commands.join("");
}

function isFinitePoint([x, y]: readonly [number, number]): boolean {
  return Number.isFinite(x) && Number.isFinite(y);
}

interface Axis {
  readonly low: number;
  readonly high: number;
  readonly ticks: readonly number[];
}

/** Ends and ticks at multiples of 1, 2 or 5 times a power of ten. */
function axis(values: readonly number[]): Axis {
  const least = values.reduce((a, b) => Math.min(a, b));
  const greatest = values.reduce((a, b) => Math.max(a, b));
  const span = greatest - least || Math.abs(greatest) || 1;
  const power = 10 ** Math.floor(Math.log10(span / TICKS));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= TICKS) ?? 10 * power;
  const first = Math.floor(least / step);
  const last = Math.max(first + 1, Math.ceil(greatest / step));
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return { low: ticks[0] ?? least, high: ticks[ticks.length - 1] ?? greatest, ticks };
}

function label(value: number): string {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential() : String(value);
}

/** A hundredth of a pixel is enough, and keeps the file small. */
function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function escapeXml(text: string): string {
  const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (character) => entities[character] ?? character);
}
