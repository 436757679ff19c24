/** Calls that must not overlap: their order, and what a failure does to those behind it. */
import { expect, test } from "vitest";
import { OneAtATime } from "../../src/engine/one-at-a-time.ts";

test("a call begins when those before it have ended, also in failure, and has its own outcome", async () => {
  const calls = new OneAtATime();
  const told: string[] = [];
  const work = (name: string, ticks: number, fails = false) =>
    calls.run(async () => {
      told.push(`${name} begins`);
      for (let i = 0; i < ticks; i++) await Promise.resolve();
      told.push(`${name} ends`);
      if (fails) throw new Error(name);
      return name;
    });
  const outcomes = await Promise.allSettled([work("slow", 20), work("wrong", 3, true), work("quick", 0)]);
  expect(told).toEqual(["slow begins", "slow ends", "wrong begins", "wrong ends", "quick begins", "quick ends"]);
  expect(outcomes.map((one) => (one.status === "fulfilled" ? one.value : String(one.reason)))).toEqual([
    "slow",
    "Error: wrong",
    "quick",
  ]);
});
