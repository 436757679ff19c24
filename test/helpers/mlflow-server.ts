/**
 * An MLflow tracking server on this machine, as its REST documentation (version 2.0) describes the calls that are made:
 * required fields, limits of a batch, parameters that cannot be written again, errors by code. Fails where a test says
 * so.
 */
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

interface Point {
  readonly key: string;
  readonly value: number | string;
  readonly timestamp: number;
  readonly step: number;
}

export interface ServedRun {
  readonly id: string;
  readonly experiment: string;
  readonly name: string;
  readonly startTime: number;
  status: string;
  endTime: number | undefined;
  readonly params: Record<string, string>;
  readonly metrics: Point[];
}

/** An answer with an error: status, error_code, message. */
type Refusal = readonly [status: number, code: string, message: string];

export interface MlflowTestServer {
  readonly address: string;
  readonly runs: ServedRun[];
  /** Names of the experiments; the index is the id. */
  readonly experiments: string[];
  /** The header Authorization of each request. */
  readonly authorizations: (string | undefined)[];
  /** Paths that were called, in their order. */
  readonly calls: string[];
  /** Set to answer a call with an error, or to break the connection off. */
  fault: ((path: string) => Refusal | "cut" | undefined) | undefined;
  readonly close: () => Promise<void>;
}

class Refused extends Error {
  readonly refusal: Refusal;

  constructor(...refusal: Refusal) {
    super(refusal[2]);
    this.refusal = refusal;
  }
}

export async function mlflowServer(): Promise<MlflowTestServer> {
  const state = {
    runs: [] as ServedRun[],
    experiments: ["Default"],
    authorizations: [] as (string | undefined)[],
    calls: [] as string[],
    fault: undefined as MlflowTestServer["fault"],
  };
  const server = createServer(async (request, response) => {
    const url = new URL(request.url ?? "", "http://localhost");
    const path = url.pathname.replace("/api/2.0/mlflow/", "");
    state.authorizations.push(request.headers.authorization);
    state.calls.push(path);
    const send = (status: number, body: unknown) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    try {
      const body = await bodyOf(request);
      const fault = state.fault?.(path);
      if (fault === "cut") return void response.destroy();
      if (fault) throw new Refused(...fault);
      send(200, answer(`${request.method} ${path}`, url.searchParams, body, state));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const [status, error_code, message] = error.refusal;
      send(status, { error_code, message });
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return Object.assign(state, { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close });
}

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  let text = "";
  for await (const piece of request) text += String(piece);
  if (text !== "" && request.headers["content-type"] !== "application/json") {
    throw new Refused(400, "BAD_REQUEST", "the content type must be application/json");
  }
  if (text.length > 1e6) throw new Refused(400, "INVALID_PARAMETER_VALUE", "a request may have up to 1 MB");
  return text === "" ? {} : (JSON.parse(text) as Record<string, unknown>);
}

function answer(
  call: string,
  query: URLSearchParams,
  body: Record<string, unknown>,
  { runs, experiments }: Pick<MlflowTestServer, "runs" | "experiments">,
): unknown {
  const text = (name: string) => {
    const value = body[name] ?? query.get(name);
    if (typeof value === "string") return value;
    throw new Refused(400, "INVALID_PARAMETER_VALUE", `Missing value for required parameter '${name}'.`);
  };
  const found = () => {
    const run = runs.find(({ id }) => id === text("run_id"));
    if (run) return run;
    throw new Refused(404, "RESOURCE_DOES_NOT_EXIST", `Run with id=${text("run_id")} not found`);
  };
  switch (call) {
    case "GET experiments/get-by-name": {
      const id = experiments.indexOf(text("experiment_name"));
      if (id >= 0) return { experiment: { experiment_id: String(id), lifecycle_stage: "active" } };
      throw new Refused(404, "RESOURCE_DOES_NOT_EXIST", "Could not find experiment");
    }
    case "POST experiments/create":
      return { experiment_id: String(experiments.push(text("name")) - 1) };
    case "POST runs/create": {
      const run: ServedRun = {
        id: `run${runs.length}`,
        experiment: experiments[Number(text("experiment_id"))] ?? "",
        name: text("run_name"),
        startTime: Number(body.start_time),
        ...{ status: "RUNNING", endTime: undefined, params: {}, metrics: [] },
      };
      runs.push(run);
      return shown(run);
    }
    case "GET runs/get":
      return shown(found());
    case "POST runs/update":
      Object.assign(found(), { status: text("status"), endTime: body.end_time });
      return { run_info: {} };
    case "POST runs/log-batch":
      return logBatch(found(), body);
    default:
      throw new Refused(404, "ENDPOINT_NOT_FOUND", call);
  }
}

function shown({ id, params }: ServedRun): unknown {
  return {
    run: {
      info: { run_id: id, lifecycle_stage: "active" },
      data: { params: Object.entries(params).map(([key, value]) => ({ key, value })) },
    },
  };
}

function logBatch(run: ServedRun, body: Record<string, unknown>): unknown {
  const { metrics = [], params = [] } = body as { metrics?: Point[]; params?: { key: string; value: string }[] };
  if (metrics.length > 1000 || params.length > 100) {
    throw new Refused(400, "INVALID_PARAMETER_VALUE", "a batch may have up to 1000 metrics and 100 params");
  }
  for (const { key, value } of params) {
    if (typeof value !== "string" || (run.params[key] ?? value) !== value) {
      throw new Refused(400, "INVALID_PARAMETER_VALUE", `Changing param values is not allowed (${key})`);
    }
    run.params[key] = value;
  }
  for (const point of metrics) {
    const isNumber = typeof point.value === "number" || ["NaN", "Infinity", "-Infinity"].includes(point.value);
    if (!isNumber || !Number.isInteger(point.timestamp) || !Number.isInteger(point.step)) {
      throw new Refused(400, "INVALID_PARAMETER_VALUE", `Invalid metric ${JSON.stringify(point)}`);
    }
    const same = run.metrics.some((one) => JSON.stringify(one) === JSON.stringify(point));
    if (!same) run.metrics.push(point);
  }
  return {};
}
