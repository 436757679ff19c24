/**
 * Requests to the hub: redirects followed without taking the token to another host, connections that stall given up,
 * passing faults tried again with growing waits, refusals turned into sentences. Knows nothing of files and caches.
 */
import { errorMessage, FileError } from "../../errors.ts";
import type { HubSettings } from "./settings.ts";

/** The hub could not be reached, or kept failing: what is cached may be used in its place. */
export class HubUnreachableError extends FileError {}

/** A fault that another attempt may not meet. */
export class PassingFault extends Error {
  readonly retryAfterMs: number | undefined;

  constructor(message: string, retryAfterMs?: number) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

/** A model or data set on the hub, for requests and sentences. */
export interface Repository {
  readonly kind: "model" | "dataset";
  readonly id: string;
}

export function pageOf(settings: HubSettings, { kind, id }: Repository): string {
  return `${settings.endpoint}/${kind === "dataset" ? "datasets/" : ""}${id}`;
}

const mostRedirects = 10;

interface Request {
  readonly url: string;
  readonly method: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  /** Stops at the redirect away from the hub: that answer describes the file, the one behind it only its storage. */
  readonly stayOnHub?: boolean;
}

/**
 * One attempt. `use` reads the answer, whatever its status, and must call `alive` for each piece that it gets.
 *
 * @throws PassingFault for a connection that fails or stalls and for the statuses of an overloaded server
 */
export async function requestOnce<T>(
  settings: HubSettings,
  request: Request,
  use: (response: Response, alive: () => void) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), settings.patience.stallMs);
  };
  alive();
  try {
    const response = await followRedirects(settings, request, abort.signal, alive);
    if (response.status === 408 || response.status === 429 || response.status >= 500) {
      await response.body?.cancel();
      throw new PassingFault(`HTTP ${response.status}`, retryAfter(response.headers.get("retry-after")));
    }
    try {
      return await use(response, alive);
    } finally {
      // What was not read keeps the connection; a body that failed cannot be cancelled any more.
      if (response.body?.locked === false) await response.body.cancel().catch(() => undefined);
    }
  } catch (error) {
    if (error instanceof PassingFault || error instanceof FileError) throw error;
    const stalled = `no byte came for ${settings.patience.stallMs / 1000} s`;
    throw new PassingFault(abort.signal.aborted ? stalled : networkReason(error));
  } finally {
    clearTimeout(timer);
  }
}

async function followRedirects(
  settings: HubSettings,
  request: Request,
  signal: AbortSignal,
  alive: () => void,
): Promise<Response> {
  let url = new URL(request.url);
  const headers = new Headers({ ...request.headers, "Accept-Encoding": "identity", "User-Agent": "kto-webgpu" });
  if (settings.token !== undefined) headers.set("Authorization", `Bearer ${settings.token}`);
  for (let hops = 0; hops < mostRedirects; hops++) {
    const response = await fetch(url, { method: request.method, headers, redirect: "manual", signal });
    alive();
    const location = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || location === null) return response;
    const next = new URL(location, url);
    if (request.stayOnHub && (next.origin !== url.origin || response.headers.has("x-linked-etag"))) return response;
    if (next.origin !== url.origin) {
      // Whoever serves the bytes was not given the token by the user. It stays off even if the way leads back.
      headers.delete("Authorization");
    }
    await response.body?.cancel();
    url = next;
  }
  throw new FileError(`Cannot download ${request.url}: its server redirects more than ${mostRedirects} times.`);
}

/**
 * Repeats an attempt that meets passing faults. The attempt may say that it got on, and then it counts as none.
 *
 * @param what is being done, to follow "Cannot"
 * @throws HubUnreachableError after the last attempt, or for a server that asks for a longer wait than is allowed
 */
export async function withRetries<T>(
  { patience: { attempts, firstDelayMs, longestDelayMs } }: Pick<HubSettings, "patience">,
  what: string,
  attempt: (gotOn: () => void) => Promise<T>,
): Promise<T> {
  for (let failed = 0; ; ) {
    let progressed = false;
    try {
      return await attempt(() => {
        progressed = true;
      });
    } catch (error) {
      if (!(error instanceof PassingFault)) throw error;
      failed = progressed ? 1 : failed + 1;
      const wait = error.retryAfterMs ?? Math.min(firstDelayMs * 2 ** (failed - 1), longestDelayMs);
      if (failed >= attempts || wait > longestDelayMs) {
        const asked = wait > longestDelayMs ? `, which asks to wait ${Math.round(wait / 1000)} s` : "";
        const tries = failed > 1 ? ` (${failed} attempts)` : "";
        throw new HubUnreachableError(
          `Cannot ${what}: ${error.message}${asked}${tries}; try again later, downloads go on where they stopped.`,
          { cause: error },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** @throws FileError with the remedy for an answer that refuses; `file` for one file of the repository */
export function checkAnswer(settings: HubSettings, repository: Repository, response: Response, file?: string): void {
  const { status } = response;
  if (status < 400) return;
  const { kind, id } = repository;
  const code = response.headers.get("x-error-code");
  const what = `the ${kind} "${id}"`;
  const page = pageOf(settings, repository);
  const tokenHint = "set HF_TOKEN to a token that may read it";
  if (code === "GatedRepo" || status === 403) {
    const next = settings.token === undefined ? tokenHint : "use the HF_TOKEN of an account that has it";
    throw new FileError(`Access to ${what} is restricted (HTTP ${status}): ask for it on ${page} and ${next}.`);
  }
  if (status === 401) {
    const remedy =
      settings.token === undefined
        ? `check the id; if it is private or gated, ${tokenHint}`
        : "check the id, and whether the token in HF_TOKEN is still valid and may read it";
    throw new FileError(`The hub does not show ${what} (HTTP 401): ${remedy}.`);
  }
  if (status === 404 && code === "RevisionNotFound") {
    throw new FileError(`${page} has no revision "${settings.revision}"; give a branch, a tag or a commit of it.`);
  }
  if (status === 404) {
    throw new FileError(
      file === undefined
        ? `There is neither a local file or folder "${id}" nor ${what} on ${settings.endpoint} (HTTP 404); check the name.`
        : `${page} lists a file ${file} but does not have it (HTTP 404); try again later, or another revision.`,
    );
  }
  throw new FileError(`${settings.endpoint} refused ${what}${file === undefined ? "" : `, ${file}`}: HTTP ${status}.`);
}

/** Seconds or a date, in milliseconds from now. */
function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined;
  const ms = /^\d+$/.test(header.trim()) ? 1000 * Number(header) : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

const networkReasons: Readonly<Record<string, string>> = {
  ENOTFOUND: "its name is not known to this network",
  EAI_AGAIN: "its name is not known to this network",
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection was cut",
  UND_ERR_SOCKET: "the connection was cut",
  ETIMEDOUT: "the connection timed out",
  UND_ERR_CONNECT_TIMEOUT: "the connection timed out",
};

/** fetch says "fetch failed" or "terminated"; why is in the cause. */
function networkReason(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "";
  return networkReasons[code] ?? errorMessage(cause);
}
