/** Reading over HTTP by ranges, the part of the browser platform that can run outside a browser. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { platform } from "../../../src/engine/platform/browser.ts";
import { FileError } from "../../../src/errors.ts";

const content = Uint8Array.from({ length: 100 }, (_, index) => index);
let server: Server;
let origin = "";
let bytesSent = 0;

beforeAll(async () => {
  server = createServer((request, response) => {
    const body = request.url === "/empty" ? new Uint8Array(0) : content;
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    if (request.url === "/missing") response.writeHead(404).end();
    else if (range !== null && request.url !== "/whole") {
      const [start, end] = [Number(range[1]), Math.min(Number(range[2]) + 1, body.length)];
      if (start >= body.length) {
        response.writeHead(416, { "Content-Range": `bytes */${body.length}` }).end();
        return;
      }
      bytesSent += end - start;
      response.writeHead(206, { "Content-Range": `bytes ${start}-${end - 1}/${body.length}` });
      response.end(body.subarray(start, end));
    } else response.writeHead(200).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.close();
  server.closeAllConnections();
});

describe("files behind a URL", () => {
  test("only the bytes asked for are fetched", async () => {
    bytesSent = 0;
    const file = await platform.openFile(`${origin}/model.safetensors`);
    expect(file.size).toBe(100);
    expect([...(await file.read(40, 3))]).toEqual([40, 41, 42]);
    expect(bytesSent).toBe(1 + 3);
  });

  test("a server that ignores ranges is read whole", async () => {
    const file = await platform.openFile(`${origin}/whole`);
    expect(file.size).toBe(100);
    expect([...(await file.read(98, 2))]).toEqual([98, 99]);
  });

  test("empty files, ends of files and missing files", async () => {
    expect((await platform.openFile(`${origin}/empty`)).size).toBe(0);
    const file = await platform.openFile(`${origin}/model.safetensors`);
    await expect(file.read(90, 20)).rejects.toThrow("the file ends at 100");
    await expect(platform.openFile(`${origin}/missing`)).rejects.toThrow(FileError);
    await expect(platform.readText(`${origin}/missing`)).rejects.toThrow("the server answered 404");
    expect(await platform.exists(`${origin}/missing`)).toBeUndefined();
    expect(await platform.exists(`${origin}/model.safetensors`)).toBe("file");
  });

  test("paths are joined and named as URLs, and writing to one is refused", async () => {
    expect(platform.joinPath(`${origin}/models/`, "tiny", "/config.json")).toBe(`${origin}/models/tiny/config.json`);
    expect(platform.baseName(`${origin}/models/config.json?download=true`)).toBe("config.json");
    await expect(platform.writeFileAtomic(`${origin}/x`, "x")).rejects.toThrow("opfs:");
  });
});
