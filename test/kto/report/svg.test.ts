/** Line plots: where a point lands, ticks at round numbers, gaps, and text that cannot break out of the markup. */
import { expect, test } from "vitest";
import { linePlots, type Series } from "../../../src/kto/report/svg.ts";

const plot = (series: Series[], includeY?: number[]) =>
  linePlots({ title: "t", xLabel: "x", panels: [{ title: "p", series, ...(includeY ? { includeY } : {}) }] });

/** Coordinates of the path of a colour: the first series is #0072B2. */
function path(svg: string, colour = "#0072B2"): string {
  return new RegExp(`<path d="([^"]*)" fill="none" stroke="${colour}"`).exec(svg)?.[1] ?? "";
}

test("the axes span the data; the ends of the data lie on the ends of the axes", () => {
  // Axis 0 to 10 over 62..424 pixels, 0 to 1 over 202..52 (upwards).
  const svg = plot([
    {
      name: "a",
      points: [
        [0, 0],
        [5, 0.5],
        [10, 1],
      ],
    },
  ]);
  expect(path(svg)).toBe("M62 202L62 202L243 127L424 52");
  for (const tick of ["0.2", "0.4", "10"]) expect(svg).toContain(`>${tick}</text>`);
});

test("values that are not finite leave a gap and do not move the axes", () => {
  const whole = plot([
    {
      name: "a",
      points: [
        [0, 0],
        [5, Number.NaN],
        [10, 1],
      ],
    },
  ]);
  expect(path(whole)).toBe("M62 202L62 202M424 52L424 52");
});

test("includeY widens the axis", () => {
  expect(
    path(
      plot(
        [
          {
            name: "a",
            points: [
              [0, 0.5],
              [1, 0.5],
            ],
          },
        ],
        [0, 1],
      ),
    ),
  ).toBe("M62 127L62 127L424 127");
});

test("one point, equal values, tiny and huge values give finite coordinates", () => {
  for (const points of [
    [[3, 7]],
    [
      [0, 0],
      [1, 0],
    ],
    [
      [0, 1e-12],
      [1, 2e-12],
    ],
    [
      [0, -1e9],
      [1, 1e9],
    ],
  ] as [number, number][][]) {
    const svg = plot([{ name: "a", points }]);
    expect(svg).not.toMatch(/NaN|Infinity/);
  }
});

test("a panel without a finite point says so", () => {
  expect(plot([{ name: "a", points: [] }])).toContain("no data");
  expect(plot([{ name: "a", points: [[0, Number.NaN]] }])).toContain("no data");
});

test("titles and names are escaped", () => {
  const svg = linePlots({
    title: `<script>&"`,
    xLabel: "a<b",
    panels: [{ title: "r & s", series: [{ name: "<i>", points: [[0, 1]] }] }],
  });
  expect(svg).not.toContain("<script");
  expect(svg).not.toContain("<i>");
  expect(svg).toContain("r &amp; s");
  expect(svg).toContain("&lt;script&gt;&amp;&quot;");
});

test("on a phone, 390 pixels wide, the words are 12 pixels high; on a dark page the card and all that is on it change", () => {
  const svg = plot([
    {
      name: "a",
      points: [
        [0, 0],
        [1, 1],
      ],
    },
  ]);
  const width = Number(/ width="(\d+)"/.exec(svg)?.[1]);
  const sizes = [...svg.matchAll(/font-size="(\d+)"/g)].map(([, size]) => Number(size));
  expect(Math.min(...sizes) * Math.min(1, 390 / width)).toBeGreaterThanOrEqual(12);
  const dark = /@media \(prefers-color-scheme: dark\) \{(.*)\}<\/style>/.exec(svg)?.[1] ?? "";
  const strokes = new Set([...svg.matchAll(/<[^>]* stroke="(#\w+)"/g)].map(([, stroke]) => stroke));
  for (const part of ["rect", "text", ...[...strokes].map((stroke) => `[stroke="${stroke}"]`)]) {
    expect(dark).toContain(`${part} {`);
  }
});
