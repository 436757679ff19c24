/**
 * What a request that failed says of its fault: the reason as a phrase, whether another attempt can help, and how long
 * a server asks to wait. Does not send anything; the hub and the judges decide when to ask again.
 */
import { asPhrase, errorMessage } from "../../errors.ts";

/** Why a request failed before it had an answer. */
export interface NetworkFault {
  /** A phrase without a full stop, such as "the connection was refused". */
  readonly reason: string;
  /** Whether the next attempt may succeed: not where the name of the server or its certificate is wrong. */
  readonly mayPass: boolean;
}

const reasons: Readonly<Record<string, string>> = {
  ENOTFOUND: "its name is not known to this network",
  EAI_AGAIN: "its name is not known to this network",
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection was cut",
  UND_ERR_SOCKET: "the connection was cut",
  ETIMEDOUT: "the connection timed out",
  UND_ERR_CONNECT_TIMEOUT: "the connection timed out",
};

/** A name that no server has (EAI_AGAIN is a name server that does not answer), and faults of TLS. */
const LASTING = /^ENOTFOUND$|^EPROTO$|CERT|_TLS_|_SSL_/;

/** Reads an error of fetch, which itself says only "fetch failed" or "terminated"; the reason is in the cause. */
export function networkFault(error: unknown): NetworkFault {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "";
  const words = errorMessage(cause) || code || "the connection failed";
  return { reason: reasons[code] ?? asPhrase(words), mayPass: !LASTING.test(code) };
}

/**
 * The wait of the header Retry-After, seconds (also with a fraction) or a date, in milliseconds from now; undefined
 * without one.
 */
export function retryAfterMs(header: string | null): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const ms = /^\d+(\.\d+)?$/.test(header.trim()) ? 1000 * Number(header) : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
