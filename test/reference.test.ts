/**
 * The tables of the documentation that are made of the code (scripts/reference): pages hold them as they are now, and
 * the numbers that they explain are those that the code writes.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { tableNames, tablesOf, withTables } from "../scripts/reference/tables.ts";
import * as errors from "../src/errors.ts";
import { METRIC_SUMS } from "../src/kernels/kto-objective.ts";
import { OPTIMIZER_STATE } from "../src/kernels/reduce.ts";
import { SFT_SUMS } from "../src/kernels/sft-objective.ts";
import { EVAL_PREFIX, EVALUATION_TIMES } from "../src/kto/evaluation/evaluator.ts";
import { WIN_RATE_METRICS } from "../src/kto/judge/compare.ts";
import { marginInterval, objectiveMetrics, sftObjectiveMetrics, windowMetrics } from "../src/kto/method/metrics.ts";
import * as meanings from "../src/kto/report/metric-meanings.ts";
import { exampleLineSchema } from "../src/kto/run/example-line.ts";

const docs = join(import.meta.dirname, "..", "docs");
const pages = readdirSync(docs, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".md"))
  .map((name) => ({ name, text: readFileSync(join(docs, name), "utf8") }));

test("the tables of the pages are those of the code (npm run docs:reference writes them)", () => {
  const outdated = pages.filter(({ text }) => withTables(text) !== text);
  expect(outdated.map(({ name }) => name)).toEqual([]);
  // Each stands on one page, and none is lost.
  expect(pages.flatMap(({ text }) => tablesOf(text)).sort()).toEqual([...tableNames].sort());
});

test("an end that is missing, or a table that nobody makes, is noticed", () => {
  expect(() => withTables("<!-- table: colours -->\n<!-- end -->")).toThrow('there is no table "colours"');
  for (const { name, text } of pages) {
    expect({ name, ends: text.match(/<!-- end -->/g)?.length ?? 0 }).toEqual({ name, ends: tablesOf(text).length });
  }
});

const namesOf = (rows: readonly meanings.Meaning[]) => rows.flatMap(({ names }) => names);

/** Sums of which each count is 1, so that every metric has a value. */
const ones = (size: number) => new Float32Array(size).fill(1);

test("the metrics of training are those that a run writes", () => {
  const written = windowMetrics(objectiveMetrics(ones(METRIC_SUMS.size), 0), new Float32Array(OPTIMIZER_STATE.size), {
    ...{ epoch: 1, learningRate: 1, tokens: 1, tokensComputed: 1, tokensPerSecond: 1, deviceTimeShare: 1 },
    outerNorm: 1,
    memory: { weights: 1 },
    ranks: { count: 2, slowest: 1, communicationShare: 0.5 },
  });
  const names = Object.keys(written).map((name) => name.replace("bytes/weights", "bytes/..."));
  expect(namesOf(meanings.trainingMetrics).sort()).toEqual(["step", ...names].sort());
});

test("the metrics of supervised fine-tuning, of evaluations and of judges are those that are written", () => {
  const ofSft = Object.keys(sftObjectiveMetrics(ones(SFT_SUMS.size)));
  // The entropy is KTO's.
  expect(namesOf(meanings.sftMetrics)).toEqual(ofSft.filter((name) => name !== "entropy"));
  const groups = [1, 2, 3].map((reward) => {
    const sums = ones(METRIC_SUMS.size);
    sums[METRIC_SUMS.desirableReward] = reward;
    return sums;
  });
  const interval = Object.keys(marginInterval(groups));
  expect(interval).toHaveLength(2);
  expect(namesOf(meanings.evaluationMetrics)).toEqual(
    [...EVALUATION_TIMES, ...interval].map((name) => `${EVAL_PREFIX}${name}`),
  );
  const ofRuns = WIN_RATE_METRICS.map((name) => name.replace(/^win_rate\/?/, "") || "share");
  expect(namesOf(meanings.winRateFields)).toEqual(expect.arrayContaining(ofRuns));
});

test("the columns of examples.jsonl are those of its schema", () => {
  expect(namesOf(meanings.exampleColumns).sort()).toEqual(Object.keys(exampleLineSchema.shape).sort());
});

test("the exit codes are those of the errors and signals", () => {
  const codes = Object.values(errors).flatMap((value) => {
    if (typeof value !== "function" || !(value.prototype instanceof errors.KtoError)) return [];
    return new (value as new (message: string) => errors.KtoError)("").exitCode;
  });
  const known = new Set([0, 1, ...codes, ...Object.values(errors.SIGNAL_CODES)]);
  expect(Object.keys(errors.EXIT_CODES).map(Number)).toEqual([...known].sort((a, b) => a - b));
});
