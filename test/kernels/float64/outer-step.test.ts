/** The outer step of DiLoCo against torch.optim.SGD's documented formula, worked out by hand, and its known limits. */
import { describe, expect, test } from "vitest";
import { outerStep } from "../../../src/kernels/float64/outer-step.ts";

const of = (...numbers: number[]) => Float64Array.from(numbers);

describe("outerStep", () => {
  // torch: v = mu v + g, p -= lr (g + mu v). Steps of g = 1 then 3 from p = 10 with lr 0.5 and mu 0.5:
  // v = 1, p = 10 - 0.5 (1 + 0.5) = 9.25; v = 3.5, p = 9.25 - 0.5 (3 + 1.75) = 6.875.
  test("is SGD with Nesterov momentum along the mean of what the ranks changed", () => {
    const options = { learningRate: 0.5, momentum: 0.5 };
    const first = outerStep({ parameter: of(10), momentum: of(0) }, [of(9.5), of(8.5)], options);
    expect([...first.parameter, ...first.momentum]).toEqual([9.25, 1]);
    const second = outerStep(first, [of(4.25), of(8.25)], options);
    expect([...second.parameter, ...second.momentum]).toEqual([6.875, 3.5]);
  });

  test("is the mean of the ranks' weights with a learning rate of 1 and no momentum", () => {
    const state = { parameter: of(1, -2), momentum: of(0, 0) };
    const { parameter } = outerStep(state, [of(2, 0), of(3, -4), of(1, 1)], { learningRate: 1, momentum: 0 });
    expect([...parameter]).toEqual([2, -1]);
  });

  test("leaves weights that no rank changed", () => {
    const state = { parameter: of(0.1, 7), momentum: of(0, 0) };
    const after = outerStep(state, [state.parameter, state.parameter], { learningRate: 0.7, momentum: 0.9 });
    expect(after).toEqual(state);
  });
});
