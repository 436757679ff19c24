/**
 * Requests to the hub: follows redirects without taking the token to another host, gives up connections that stall,
 * tries again with growing waits after faults that may pass, turns refusals into sentences. Knows nothing of files and
 * caches.
 */
import { FileError, shown } from "../../errors.ts";
import { DeadlineError, withDeadline } from "../platform/deadline.ts";
import { networkFault, retryAfterMs } from "../platform/network-faults.ts";
import type { HubSettings } from "./settings.ts";

/** The hub could not be reached, or kept failing; the cached copy may be used in its place. */
export class HubUnreachableError extends FileError {}

/** A fault that may be gone at the next attempt. */
export class PassingFault extends Error {
  readonly retryAfterMs: number | undefined;

  constructor(message: string, retryAfterMs?: number) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The server cannot be reached at all: its name or its certificate is wrong, or this machine has no network. */
class LastingFault extends Error {}

/** A model or data set on the hub that these settings name. */
export interface Repository {
  readonly settings: HubSettings;
  readonly kind: "model" | "dataset";
  readonly id: string;
}

export function pageOf({ settings, kind, id }: Repository): string {
  return `${settings.endpoint}/${kind === "dataset" ? "datasets/" : ""}${id}`;
}

const mostRedirects = 10;

interface Request {
  readonly url: string;
  readonly method: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  /** Stops at the redirect that describes the file, by its ETag: the answer behind it describes only the storage. */
  readonly stopAtDescription?: boolean;
}

/**
 * One attempt. A connection that brings nothing for `patience.stallMs` is given up.
 *
 * @param use reads the answer, whatever its status, with the signal that ends the attempt, and calls `alive` for each
 *   piece that arrives
 * @throws PassingFault for a connection that fails or stalls and for the statuses of an overloaded server; LastingFault
 *   for a server that there is no way to
 */
export async function requestOnce<T>(
  settings: HubSettings,
  request: Request,
  use: (response: Response, signal: AbortSignal, alive: () => void) => Promise<T>,
): Promise<T> {
  const { stallMs } = settings.patience;
  let reading: Promise<T> | undefined;
  const attempt = async (signal: AbortSignal, alive: () => void) => {
    const response = await followRedirects(settings, request, signal, alive);
    try {
      if (response.status === 408 || response.status === 429 || response.status >= 500) {
        throw new PassingFault(`HTTP ${response.status}`, retryAfterMs(response.headers.get("retry-after")));
      }
      reading = use(response, signal, alive);
      return await reading;
    } finally {
      // A body that is not read keeps the connection; one that failed can no longer be cancelled.
      if (response.body?.locked === false) await response.body.cancel().catch(() => undefined);
    }
  };
  try {
    return await withDeadline(stallMs, attempt);
  } catch (error) {
    // The next attempt must not begin while this one still writes a piece to the disk.
    await reading?.catch(() => undefined);
    if (error instanceof PassingFault || error instanceof FileError) throw error;
    if (error instanceof DeadlineError) throw new PassingFault(`no byte came for ${stallMs / 1000} s`);
    const { reason, mayPass } = networkFault(error);
    throw mayPass ? new PassingFault(reason) : new LastingFault(reason);
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
    const next = URL.canParse(location, url) ? new URL(location, url) : undefined;
    const isElsewhere = next?.origin !== url.origin;
    // A redirect within the hub has an ETag of its own; one without any, as of a mirror, describes nothing.
    const etag = response.headers.get("x-linked-etag") ?? (isElsewhere ? response.headers.get("etag") : null);
    if (request.stopAtDescription && etag !== null) return response;
    await response.body?.cancel();
    if (next?.protocol !== "https:" && next?.protocol !== "http:") {
      throw new FileError(
        `Cannot download ${request.url}: its server redirects to ${shown(location)}, which is no http or https address; check HF_ENDPOINT.`,
      );
    }
    // The user gave the token to this server and no other. It stays off even if the way leads back.
    if (isElsewhere) headers.delete("Authorization");
    url = next;
  }
  throw new FileError(`Cannot download ${request.url}: its server redirects more than ${mostRedirects} times.`);
}

/**
 * Repeats an attempt that meets passing faults. An attempt that calls `gotOn` has made progress and is not counted;
 * once there was progress, a fault that lasts elsewhere counts as passing too, for it may be the network's.
 *
 * @param what the attempt does, as it follows "Cannot" in a message
 * @throws HubUnreachableError after the last attempt, or if the server asks for a longer wait than is allowed
 */
export async function withRetries<T>(
  { patience: { attempts, firstDelayMs, longestDelayMs } }: Pick<HubSettings, "patience">,
  what: string,
  attempt: (gotOn: () => void) => Promise<T>,
): Promise<T> {
  let everProgressed = false;
  for (let failed = 0; ; ) {
    let progressed = false;
    try {
      return await attempt(() => {
        progressed = true;
        everProgressed = true;
      });
    } catch (error) {
      if (error instanceof LastingFault && !everProgressed) {
        const remedy = "check the network, and HF_ENDPOINT if it is set";
        throw new HubUnreachableError(`Cannot ${what}: ${error.message}; ${remedy}.`, { cause: error });
      }
      if (!(error instanceof PassingFault || error instanceof LastingFault)) throw error;
      failed = progressed ? 1 : failed + 1;
      const asked = error instanceof PassingFault ? error.retryAfterMs : undefined;
      const wait = asked ?? Math.min(firstDelayMs * 2 ** (failed - 1), longestDelayMs);
      if (failed >= attempts || wait > longestDelayMs) {
        const tooLong = wait > longestDelayMs ? `, which asks to wait ${Math.round(wait / 1000)} s` : "";
        const tries = failed > 1 ? ` (${failed} attempts)` : "";
        const goesOn = what.startsWith("download") ? ", downloads go on where they stopped" : "";
        throw new HubUnreachableError(`Cannot ${what}: ${error.message}${tooLong}${tries}; try again later${goesOn}.`, {
          cause: error,
        });
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/**
 * @param file if one file of the repository was asked for
 * @throws FileError with the remedy if the answer is a refusal
 */
export function checkResponse(repository: Repository, response: Response, file?: string): void {
  const { status } = response;
  if (status < 400) return;
  const { settings, kind, id } = repository;
  const code = response.headers.get("x-error-code");
  const what = `the ${kind} "${id}"`;
  const page = pageOf(repository);
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
