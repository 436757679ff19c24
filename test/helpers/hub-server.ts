/**
 * A Hugging Face hub of one repository on this machine, and the storage behind it at another port, as the real one
 * answers: listings, ETags, redirects of large files, ranges. Misbehaves where a test says so.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate } from "node:timers/promises";

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
/** git's name of a file's content. */
export const gitHash = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** What happens instead of a proper answer. `body` is what a proper one would send from `start` on. */
export type Fault = (response: ServerResponse, body: Buffer, start: number, request: IncomingMessage) => void;

export const faults = {
  status:
    (code: number, headers: Record<string, string> = {}): Fault =>
    (response) =>
      void response.writeHead(code, headers).end(),
  /**
   * Sends so many bytes, then breaks the connection once they have arrived: what the client has not read is lost then.
   *
   * @param arrivedBytes how much of the whole file the client has by now
   */
  cutAfter:
    (bytes: number, arrivedBytes: () => number): Fault =>
    async (response, body, start) => {
      writeHead(response, body, start);
      response.write(body.subarray(0, bytes));
      while (arrivedBytes() < start + bytes) await setImmediate();
      response.destroy();
    },
  /** Sends so many bytes, then nothing. */
  stallAfter:
    (bytes: number): Fault =>
    (response, body, start) => {
      writeHead(response, body, start);
      response.write(body.subarray(0, bytes));
    },
  /** Sends other bytes, with the length that they have. */
  send:
    (bytes: Uint8Array, status = 200): Fault =>
    (response) =>
      void response.writeHead(status, { "Content-Length": bytes.length }).end(bytes),
  /** Sends other bytes without telling how many. */
  sendChunked:
    (bytes: Uint8Array): Fault =>
    (response) =>
      void response.writeHead(200).end(bytes),
  /** Sends everything, whatever range was asked for. */
  ignoreRange:
    (whole: Uint8Array): Fault =>
    (response) =>
      void response.writeHead(200, { "Content-Length": whole.length }).end(whole),
} as const;

function writeHead(response: ServerResponse, body: Buffer, start: number): void {
  const headers: Record<string, string | number> = { "Content-Length": body.length };
  const total = start + body.length;
  if (start > 0) headers["Content-Range"] = `bytes ${start}-${total - 1}/${total}`;
  response.writeHead(start > 0 ? 206 : 200, headers);
}

export interface SeenRequest {
  /** "api", "HEAD config.json", "GET config.json", "CDN model.safetensors" */
  readonly what: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

export class FakeHub {
  readonly id: string;
  readonly kind: "models" | "datasets";
  commit = "0123456789abcdef0123456789abcdef01234567";
  files: Record<string, Buffer>;
  readonly seen: SeenRequest[] = [];
  /** By what is asked for; each is used once. */
  readonly faults: Record<string, Fault[]> = {};
  endpoint = "";
  #storage = "";
  readonly #servers: Server[] = [];

  constructor(id: string, files: Record<string, Buffer>, kind: "models" | "datasets" = "models") {
    this.id = id;
    this.files = files;
    this.kind = kind;
  }

  async start(): Promise<this> {
    this.endpoint = await this.#listen((request, response) => this.#hub(request, response));
    this.#storage = await this.#listen((request, response) => this.#serveStorage(request, response));
    return this;
  }

  stop(): void {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }

  /** What was asked for since the last call. */
  take(): string[] {
    return this.seen.splice(0).map(({ what }) => what);
  }

  async #listen(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
    const server = createServer(answer);
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  #note(what: string, request: IncomingMessage): Fault | undefined {
    const { range, authorization } = request.headers;
    this.seen.push({ what, range, authorization });
    return this.faults[what]?.shift();
  }

  #hub(request: IncomingMessage, response: ServerResponse): void {
    const url = decodeURIComponent(request.url ?? "");
    if (url.startsWith(`/api/${this.kind}/${this.id}/revision/`)) {
      const fault = this.#note("api", request);
      if (fault) {
        fault(response, Buffer.alloc(0), 0, request);
        return;
      }
      const siblings = Object.keys(this.files).map((rfilename) => ({ rfilename }));
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(JSON.stringify({ id: this.id, sha: this.commit, siblings }));
      return;
    }
    const base = `/${this.kind === "datasets" ? "datasets/" : ""}${this.id}/resolve/${this.commit}/`;
    const name = url.slice(base.length);
    const body = url.startsWith(base) ? this.files[name] : undefined;
    if (body === undefined) {
      this.#note(url, request);
      response.writeHead(404, { "X-Error-Code": "RepoNotFound" }).end();
      return;
    }
    const fault = this.#note(`${request.method} ${name}`, request);
    if (fault) {
      fault(response, body, 0, request);
      return;
    }
    const large = /\.(safetensors|parquet|bin)$/.test(name);
    if (large) {
      response.writeHead(302, {
        Location: `${this.#storage}/${name}`,
        "X-Linked-Etag": `"${sha256(body)}"`,
        "X-Linked-Size": body.length,
      });
      response.end();
    } else {
      response.writeHead(200, { ETag: `W/"${gitHash(body)}"`, "Content-Length": body.length });
      response.end(body);
    }
  }

  #serveStorage(request: IncomingMessage, response: ServerResponse): void {
    const name = decodeURIComponent((request.url ?? "").slice(1));
    const body = this.files[name] ?? Buffer.alloc(0);
    const [, first = "0", last = ""] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const start = Number(first);
    const end = last === "" ? body.length : Math.min(body.length, Number(last) + 1);
    const fault = this.#note(`CDN ${name}`, request);
    if (fault) {
      fault(response, body.subarray(start), start, request);
      return;
    }
    if (start >= body.length && start > 0) {
      response.writeHead(416).end();
      return;
    }
    if (last !== "") {
      response.writeHead(206, {
        "Content-Length": end - start,
        "Content-Range": `bytes ${first}-${end - 1}/${body.length}`,
      });
    } else writeHead(response, body.subarray(start), start);
    response.end(body.subarray(start, end));
  }
}
