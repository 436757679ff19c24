/**
 * The part of a Hugging Face hub that uploads need, on this machine: who the token is of, repositories, which files are
 * large, their storage, and commits. Refuses what the real one refuses; misbehaves where a test says so.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A status with the words of its answer, or a cut connection. */
type Fault = { readonly status: number; readonly words: string } | "cut";

export interface UploadServer {
  readonly endpoint: string;
  readonly token: string;
  /** Repositories by id. */
  readonly repositories: Map<string, { readonly visibility: string | undefined; readonly files: Map<string, Buffer> }>;
  readonly commits: { readonly id: string; readonly title: string; readonly files: readonly string[] }[];
  /** Method and path of each request. */
  readonly calls: string[];
  /** Headers Authorization of requests to the storage, which must have none. */
  readonly leaked: string[];
  fault: ((call: string) => Fault | undefined) | undefined;
  readonly close: () => Promise<void>;
}

/** Files of so many bytes and more go to the storage. */
const LARGE = 4096;

export async function uploadServer(): Promise<UploadServer> {
  const stored = new Map<string, Buffer>();
  const server: Omit<UploadServer, "endpoint" | "close"> = {
    token: "hf_testtokentesttoken",
    repositories: new Map(),
    commits: [],
    calls: [],
    leaked: [],
    fault: undefined,
  };
  const storage = await listening(async (request, response) => {
    server.calls.push(`${request.method} storage`);
    if (request.headers.authorization !== undefined) server.leaked.push(request.headers.authorization);
    const body = await bodyOf(request);
    stored.set(createHash("sha256").update(body).digest("hex"), body);
    response.writeHead(200, { ETag: '"stored"' }).end();
  });
  const hub = await listening(async (request, response) => {
    const call = `${request.method} ${request.url}`;
    server.calls.push(call);
    const body = await bodyOf(request);
    const fault = server.fault?.(call);
    if (fault === "cut") return void request.socket.destroy();
    const answer = (status: number, json: unknown) =>
      void response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(json));
    if (fault !== undefined) return answer(fault.status, { error: fault.words });
    if (request.headers.authorization !== `Bearer ${server.token}`) return answer(401, { error: "Invalid token" });
    if (call === "GET /api/whoami-v2")
      return answer(200, { type: "user", name: "ada", auth: { type: "access_token" } });
    if (call === "POST /api/repos/create") {
      const { name, organization, visibility, type } = JSON.parse(body.toString()) as Record<string, string>;
      const id = `${organization}/${name}`;
      if (type !== "model") return answer(400, { error: "not a model" });
      if (server.repositories.has(id)) return answer(409, { error: "You already created this model repo" });
      server.repositories.set(id, { visibility, files: new Map() });
      return answer(200, { url: `${hub.address}/${id}`, id });
    }
    const [, id = "", action = ""] =
      /^\/api\/models\/(.+)\/(preupload|commit)\/main$/.exec(request.url ?? "") ??
      /^\/(.+)\.git\/info\/lfs\/objects\/(batch)$/.exec(request.url ?? "") ??
      [];
    const repository = server.repositories.get(id);
    if (repository === undefined) return answer(404, { error: "Repository not found" });
    if (action === "preupload") {
      const { files } = JSON.parse(body.toString()) as { files: { path: string; size: number }[] };
      const mode = (size: number) => (size >= LARGE ? "lfs" : "regular");
      return answer(200, {
        files: files.map(({ path, size }) => ({ path, uploadMode: mode(size), shouldIgnore: false })),
      });
    }
    if (action === "batch") {
      const { objects } = JSON.parse(body.toString()) as { objects: { oid: string; size: number }[] };
      const actions = (oid: string) => (stored.has(oid) ? undefined : { upload: { href: storage.address } });
      return answer(200, {
        transfer: "basic",
        objects: objects.map(({ oid, size }) => ({ oid, size, actions: actions(oid) })),
      });
    }
    const lines = body
      .toString()
      .split("\n")
      .map((line) => JSON.parse(line) as { key: string; value: Record<string, string> });
    const files: string[] = [];
    let title = "";
    for (const { key, value } of lines) {
      if (key === "header") title = value.summary ?? "";
      else {
        const large = stored.get(value.oid ?? "");
        const content = key === "lfsFile" ? large : Buffer.from(value.content ?? "", "base64");
        if (content === undefined) return answer(400, { error: `${value.path} was not uploaded` });
        repository.files.set(value.path ?? "", content);
        files.push(value.path ?? "");
      }
    }
    server.commits.push({ id, title, files });
    return answer(200, { success: true, commitOid: "c0ffee", commitUrl: `${hub.address}/${id}/commit/c0ffee` });
  });
  return Object.assign(server, {
    endpoint: hub.address,
    close: async () => {
      await Promise.all([hub.close(), storage.close()]);
    },
  });
}

async function listening(handle: (request: IncomingMessage, response: ServerResponse) => Promise<unknown>) {
  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => response.writeHead(500).end(String(error)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
