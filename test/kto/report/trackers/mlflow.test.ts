/** MLflow against a server that follows its REST documentation: runs, parameters, metrics, failures, what is said. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Mlflow, type MlflowRun } from "../../../../src/kto/report/trackers/mlflow.ts";
import { Delivery, type TrackedLine } from "../../../../src/kto/report/trackers/tracker.ts";
import { type MlflowTestServer, mlflowServer } from "../../../helpers/mlflow-server.ts";

let server: MlflowTestServer;
beforeEach(async () => {
  for (const name of ["TOKEN", "USERNAME", "PASSWORD"]) vi.stubEnv(`MLFLOW_TRACKING_${name}`, "");
  for (const name of ["EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID"]) vi.stubEnv(`MLFLOW_${name}`, "");
  server = await mlflowServer();
  vi.stubEnv("MLFLOW_TRACKING_URI", server.address);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.close();
});

const line = (step: number, values: TrackedLine["values"] = { loss: 1 / step }): TrackedLine => ({
  time: 1764512345000 + step,
  step,
  values,
});

function mlflow(more: { config?: Record<string, unknown>; continued?: MlflowRun } = {}) {
  const ids: string[] = [];
  const tracker = new Mlflow({
    ...{ runName: "out", config: {}, continued: undefined, ...more },
    keep: async ({ run_id }) => void ids.push(run_id),
  });
  return { tracker, ids };
}

/** A delivery without pauses between attempts, and its warnings. */
function delivery(tracker: Mlflow) {
  const warnings: string[] = [];
  return { warnings, sent: new Delivery(tracker, (sentence) => warnings.push(sentence), 0) };
}

describe("a run", () => {
  test("is made in the experiment of the environment, which is created once", async () => {
    vi.stubEnv("MLFLOW_EXPERIMENT_NAME", "thumbs & more");
    for (const end of ["finished", "failed"] as const) {
      const { tracker, ids } = mlflow();
      await tracker.start();
      expect(server.runs.at(-1)).toMatchObject({ experiment: "thumbs & more", name: "out", status: "RUNNING" });
      expect(ids).toEqual([server.runs.at(-1)?.id]);
      await tracker.end(end);
    }
    expect(server.experiments).toEqual(["Default", "thumbs & more"]);
    expect(server.runs.map(({ status }) => status)).toEqual(["FINISHED", "FAILED"]);
    expect(server.runs[0]?.endTime).toBeGreaterThanOrEqual(server.runs[0]?.startTime ?? Number.NaN);
  });

  test("has the configuration as texts, without passwords in addresses, in batches of 100", async () => {
    const many = Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`option_${i}`, i]));
    const judge_base_url = "https://me:hunter2@host/v1";
    const config = { beta: 0.1, absent: undefined, none: null, freeze_parameters: ["a"], judge_base_url, ...many };
    const { tracker } = mlflow({ config });
    await tracker.start();
    expect(server.runs[0]?.params).toEqual({
      ...{ beta: "0.1", freeze_parameters: '["a"]', judge_base_url: "https://host/v1" },
      ...Object.fromEntries(Object.entries(many).map(([name, value]) => [name, String(value)])),
    });
    expect(server.calls.filter((call) => call === "runs/log-batch")).toHaveLength(2);
  });

  test("gets metrics in batches of 1000, NaN and infinities in protobuf's words", async () => {
    const { tracker } = mlflow();
    await tracker.start();
    const values = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`metric_${i}`, i]));
    await tracker.write(Array.from({ length: 40 }, (_, step) => line(step, values)));
    expect(server.runs[0]?.metrics).toHaveLength(1200);
    await tracker.write([line(41, { nan: Number.NaN, low: Number.NEGATIVE_INFINITY, none: null })]);
    expect(server.runs[0]?.metrics.slice(1200)).toEqual([
      { key: "nan", value: "NaN", timestamp: 1764512345041, step: 41 },
      { key: "low", value: "-Infinity", timestamp: 1764512345041, step: 41 },
    ]);
  });

  test.each(["kept", "MLFLOW_RUN_ID"])("goes on (%s): running again, only new parameters are written", async (how) => {
    const first = mlflow({ config: { max_steps: 4 } });
    await first.tracker.start();
    await first.tracker.end("stopped");
    expect(server.runs[0]?.status).toBe("KILLED");
    if (how === "MLFLOW_RUN_ID") vi.stubEnv("MLFLOW_RUN_ID", "run0");
    const continued = how === "kept" ? { continued: { address: server.address, run_id: "run0" } } : {};
    const { tracker, ids } = mlflow({ config: { max_steps: 8, beta: 0.1 }, ...continued });
    await tracker.start();
    expect(ids).toEqual(["run0"]);
    expect(server.runs).toMatchObject([{ status: "RUNNING", params: { max_steps: "4", beta: "0.1" } }]);
  });
});

test("a run of another server is not looked for on this one", async () => {
  await mlflow({ continued: { address: "http://other:5000", run_id: "run0" } }).tracker.start();
  expect(server.calls).toEqual(["runs/create"]);
});

describe("who asks", () => {
  test.each([
    [{ TOKEN: "t0ken" }, "Bearer t0ken"],
    [{ USERNAME: "me", PASSWORD: "hünter2" }, `Basic ${Buffer.from("me:hünter2").toString("base64")}`],
    [{ USERNAME: "me", PASSWORD: "pw", TOKEN: "t" }, `Basic ${Buffer.from("me:pw").toString("base64")}`],
    [{}, undefined],
  ])("%j", async (environment, header) => {
    for (const [name, value] of Object.entries(environment)) vi.stubEnv(`MLFLOW_TRACKING_${name}`, value);
    await mlflow().tracker.start();
    expect(new Set(server.authorizations)).toEqual(new Set([header]));
  });

  test.each([
    { TOKEN: "s3cret-token" },
    { USERNAME: "me", PASSWORD: "s3cret-token" },
    { URI: "http://me:s3cret-token@" },
  ])("no secret is said, also where the server sends it back: %j", async (environment) => {
    for (const [name, value] of Object.entries(environment)) {
      const uri = name === "URI" ? server.address.replace("http://", String(value)) : value;
      vi.stubEnv(`MLFLOW_TRACKING_${name}`, uri);
    }
    server.fault = () => [401, "UNAUTHENTICATED", `no: s3cret-token, ${server.authorizations.at(-1)}`];
    const { sent, warnings } = delivery(mlflow().tracker);
    sent.start();
    await sent.end("finished");
    expect(warnings).toEqual([
      expect.stringMatching(
        /^MLflow does not take the metrics: http:\/\/127\.0\.0\.1:\d+ answers runs\/create with status 401 \(no: \[hidden\], (Basic|Bearer) \[hidden\]\); set MLFLOW_TRACKING_USERNAME and .*\. The training goes on without it\.$/,
      ),
    ]);
  });

  test.each([
    ["", "set MLFLOW_TRACKING_URI in the environment to a server's address"],
    ["databricks", "must be the address of a server"],
    ["./mlruns", "must be the address of a server"],
  ])("MLFLOW_TRACKING_URI %j is refused", (uri, sentence) => {
    vi.stubEnv("MLFLOW_TRACKING_URI", uri);
    expect(() => mlflow()).toThrow(sentence);
  });
});

describe("failures", () => {
  test("one warning; when the server is back it gets every line once", async () => {
    const { sent, warnings } = delivery(mlflow().tracker);
    const faults = [() => "cut", () => [503, "TEMPORARILY_UNAVAILABLE", "soon"]] as const;
    for (const fault of faults) {
      server.fault = fault as MlflowTestServer["fault"];
      const before = server.calls.length;
      sent.add(line(server.calls.length + 1));
      await vi.waitUntil(() => server.calls.length > before);
    }
    server.fault = undefined;
    for (let step = 100; step < 160; step++) sent.add(line(step));
    await sent.end("finished");
    expect(warnings).toEqual([
      expect.stringMatching(
        /^MLflow does not take the metrics: .*the connection was cut\. The training goes on and tries/,
      ),
    ]);
    expect(server.runs).toHaveLength(1);
    expect(server.runs[0]?.metrics).toHaveLength(62);
    expect(server.runs[0]?.status).toBe("FINISHED");
  });

  test("a server that stays away: two sentences, the second with the number of lines", async () => {
    await server.close();
    const { sent, warnings } = delivery(mlflow().tracker);
    for (let step = 1; step <= 5; step++) sent.add(line(step));
    await sent.end("finished");
    expect(warnings[0]).toMatch(/: the connection was refused\. The training goes on and tries again\.$/);
    expect(warnings[1]).toMatch(/^MLflow lacks 5 of 5 lines of metrics: .*: the connection was refused\.$/);
    expect(warnings).toHaveLength(2);
  });

  test("a run that was removed from the server is not made again", async () => {
    const { sent, warnings } = delivery(mlflow({ continued: { address: server.address, run_id: "gone" } }).tracker);
    sent.add(line(1));
    await sent.end("finished");
    expect(warnings[0]).toContain("status 404 (Run with id=gone not found). The training goes on without it.");
    expect(warnings[1]).toContain("MLflow lacks 1 of 1 line of metrics");
    expect(server.runs).toEqual([]);
  });

  test("a server that is none of MLflow's", async () => {
    vi.stubEnv("MLFLOW_TRACKING_URI", `${server.address}/other`);
    const { sent, warnings } = delivery(mlflow().tracker);
    sent.start();
    await sent.end("finished");
    expect(warnings[0]).toContain("answers runs/create with status 404");
  });
});
