/** `kto bench`: the contract of its JSON, which other programs read, and what it says of peers that are wrong. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectAllClose } from "../../../bench/measure/case.ts";
import { tableLines } from "../../../src/cli/commands/bench.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();

let scratch = "";
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "kto-bench-test-"));
});
afterAll(() => rmSync(scratch, { recursive: true }));

describe("kto bench", () => {
  test("--json writes adapter, peaks and results; the table goes to stdout", async () => {
    const file = join(scratch, "results.json");
    const { code, stdout } = await kto("bench", "--quick", "--filter", "Embedding", "--json", file);
    expect(code).toBe(0);
    const report = JSON.parse(readFileSync(file, "utf8"));
    const positive = (value: unknown) => expect(Number(value)).toBeGreaterThan(0);
    expect(report.adapter).toEqual(expect.any(String));
    expect(report.versions).toMatchObject({ webgpu: expect.any(String) });
    positive(report.peaks.gflops);
    positive(report.peaks.gbps);
    expect(report.results.map(({ name }: { name: string }) => name)).toEqual([
      "embedding forward",
      "embedding backward",
    ]);
    for (const result of report.results) {
      expect(result).toMatchObject({ shape: expect.any(String), gflops: expect.any(Number), peers: {} });
      for (const key of ["median_ms", "gbps", "share_of_peak"]) positive(result[key]);
    }
    expect(stdout).toContain(report.adapter);
    expect(stdout).toMatch(/^embedding forward +1024 rows/m);
  });

  test("a filter that leaves nothing is refused with the names that there are", async () => {
    const { code, stderr } = await kto("bench", "--filter", "pooling");
    expect(code).toBe(2);
    expect(stderr).toContain('no benchmark has "pooling" in its name: there are matmul NN, matmul NT');
  });

  test("a wrong kernel is not timed: its check throws", () => {
    expect(() => expectAllClose("y", [1, 2.001], [1, 2])).toThrow("y[1] is 2.001, wanted 2 within");
    expect(() => expectAllClose("y", [1], [1, 2])).toThrow("y[1] is undefined");
    expect(() => expectAllClose("y", [1, Number.NaN], [1, 2])).toThrow("y[1] is NaN");
  });

  test("a peer that disagrees is reported without a time", () => {
    const result = {
      ...{ name: "matmul NN", shape: "1 x 1 x 1", median_ms: 2, device_ms: null, spread: 0.1 },
      ...{ gflops: 1, gbps: 1, share_of_peak: 0.5 },
      peers: { fast: { median_ms: 1, spread: 0 }, wrong: { error: "out[0, 0] is 1, wanted 2 within 0.1" } },
    };
    const [, fast, wrong] = tableLines(result);
    expect(fast).toMatch(/^ {2}fast +0\.50 times ours +1\.000/);
    expect(wrong).toBe("  wrong: not timed: out[0, 0] is 1, wanted 2 within 0.1");
  });
});
