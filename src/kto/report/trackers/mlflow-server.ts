/**
 * An MLflow tracking server behind its REST interface (version 2.0), as the environment names it. Passwords and tokens
 * are removed from everything that is said of it.
 */
import * as z from "zod";
import { bodyText, DeadlineError, withDeadline } from "../../../engine/platform/deadline.ts";
import { platform } from "../../../engine/platform/index.ts";
import { networkFault } from "../../../engine/platform/network-faults.ts";
import { asPhrase, shortened } from "../../../errors.ts";
import { TrackerFault } from "./tracker.ts";

const TIMEOUT_MS = 15_000;
/** Bytes of an answer that are read; a run has hundreds of parameters and metrics. */
const MOST_BYTES = 2 ** 22;
/** Characters of a server's error that a message quotes. */
const QUOTED = 300;
/** Stands where a password or token was. */
const HIDDEN = "[hidden]";

const serverError = z.object({ error_code: z.string().optional(), message: z.string().optional() });

export class MlflowServer {
  /** The address without a name and a password. */
  readonly address: string;
  readonly #authorization: string | undefined;
  readonly #secrets: readonly string[];

  /**
   * The server of MLFLOW_TRACKING_URI, with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or those in the
   * address, or MLFLOW_TRACKING_TOKEN.
   *
   * @throws TrackerFault where the environment names no server that speaks HTTP
   */
  constructor() {
    const uri = platform.environment("MLFLOW_TRACKING_URI");
    if (uri === undefined) {
      throw new TrackerFault(
        "set MLFLOW_TRACKING_URI in the environment to a server's address, such as http://localhost:5000",
        false,
      );
    }
    if (!/^https?:\/\//i.test(uri) || !URL.canParse(uri)) {
      throw new TrackerFault(
        "MLFLOW_TRACKING_URI must be the address of a server, such as http://localhost:5000; folders, databases and databricks are not written to",
        false,
      );
    }
    const url = new URL(uri);
    const user = platform.environment("MLFLOW_TRACKING_USERNAME") ?? decodeURIComponent(url.username);
    const password = platform.environment("MLFLOW_TRACKING_PASSWORD") ?? decodeURIComponent(url.password);
    const token = platform.environment("MLFLOW_TRACKING_TOKEN");
    const basic = encodeBase64(`${user}:${password}`);
    const asUser = user !== "" && password !== "";
    this.#authorization = asUser ? `Basic ${basic}` : token === undefined ? undefined : `Bearer ${token}`;
    this.#secrets = [password, token ?? "", asUser ? basic : ""]
      .filter((secret) => secret !== "")
      .flatMap((secret) => [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)]);
    this.address = `${url.origin}${url.pathname}`.replace(/\/+$/, "");
  }

  /**
   * GET with a query.
   *
   * @throws TrackerFault
   */
  async get<S extends z.ZodType>(path: string, query: Record<string, string>, answer: S): Promise<z.output<S>> {
    return await this.#request(`${path}?${new URLSearchParams(query)}`, undefined, answer);
  }

  /**
   * POST with a JSON body.
   *
   * @throws TrackerFault
   */
  async post<S extends z.ZodType>(path: string, body: object, answer: S): Promise<z.output<S>> {
    return await this.#request(path, JSON.stringify(body), answer);
  }

  async #request<S extends z.ZodType>(path: string, body: string | undefined, answer: S): Promise<z.output<S>> {
    try {
      return await withDeadline(TIMEOUT_MS, (signal) => this.#exchange(path, body, answer, signal));
    } catch (error) {
      if (error instanceof TrackerFault) throw error;
      const { reason, mayPass } =
        error instanceof DeadlineError ? { reason: error.message, mayPass: true } : networkFault(error);
      throw new TrackerFault(`${this.address}: ${this.#withoutSecrets(reason)}`, mayPass);
    }
  }

  async #exchange<S extends z.ZodType>(
    path: string,
    body: string | undefined,
    answer: S,
    signal: AbortSignal,
  ): Promise<z.output<S>> {
    const authorization = this.#authorization;
    const response = await fetch(`${this.address}/api/2.0/mlflow/${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(authorization === undefined ? {} : { authorization }),
      },
      ...(body === undefined ? {} : { body }),
      signal,
    });
    const { text } = await bodyText(response, MOST_BYTES, signal);
    const json = jsonOf(text);
    const { status } = response;
    const called = path.replace(/\?.*$/s, "");
    if (!response.ok) {
      const { error_code: code, message } = serverError.safeParse(json).data ?? {};
      const said = asPhrase(shortened(this.#withoutSecrets(message ?? text), QUOTED));
      throw new TrackerFault(
        `${this.address} answers ${called} with status ${status} (${said})${advice(status)}`,
        status === 408 || status === 429 || status >= 500,
        code,
      );
    }
    const read = answer.safeParse(json);
    if (read.success) return read.data;
    throw new TrackerFault(`${this.address} does not answer ${called} as an MLflow server does`, false);
  }

  #withoutSecrets(text: string): string {
    return this.#secrets.reduce((shown, secret) => shown.replaceAll(secret, HIDDEN), text);
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a proxy's page, which the schema of the answer refuses
  }
}

function advice(status: number): string {
  if (status !== 401 && status !== 403) return "";
  return "; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN";
}

function encodeBase64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
