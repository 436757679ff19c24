/** Sparklines and bars, and the memory of a curve, which is bounded. */
import { expect, test } from "vitest";
import { bar, type Curve, NO_CURVE, sparkline, withValue } from "../../../src/cli/terminal/bars.ts";

const theme = { background: "dark", colors: false, unicode: true } as const;
const curveOf = (values: readonly number[]) => values.reduce<Curve>(withValue, NO_CURVE);

test("a sparkline spans its lowest and highest value", () => {
  expect(sparkline(curveOf([0, 1, 2, 3, 4, 5, 6, 7]), 8, theme)).toBe("▁▂▃▄▅▆▇█");
  expect(sparkline(curveOf([0, 1, 2, 3, 4, 5, 6, 7]), 4, theme)).toBe("▁▃▆█");
  expect(sparkline(curveOf([0, 7]), 8, { ...theme, unicode: false })).toBe(".@");
});

test("a level curve lies low, one without values is empty, and what is not finite is left out", () => {
  expect(sparkline(curveOf([3, 3, 3]), 8, theme)).toBe("▁▁▁");
  expect(sparkline(NO_CURVE, 8, theme)).toBe("");
  expect(sparkline(curveOf([0, Number.NaN, Number.POSITIVE_INFINITY, 1]), 8, theme)).toBe("▁█");
});

test("a long curve keeps its shape in bounded memory", () => {
  const curve = curveOf(Array.from({ length: 100_000 }, (_, i) => i));
  expect(curve.means.length + curve.rest.length).toBeLessThan(1000);
  expect(sparkline(curve, 8, theme)).toBe("▁▂▃▄▅▆▇█");
});

test.each([
  [0, "──────────"],
  [0.5, "━━━━━─────"],
  [1, "━━━━━━━━━━"],
  [7, "━━━━━━━━━━"],
])("a bar of %d", (share, wanted) => {
  const { done, left } = bar(share, 10, theme);
  expect(done + left).toBe(wanted);
});
