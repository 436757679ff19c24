/** What of the browser platform can run outside a browser: reading over HTTP by ranges, files in memory. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { platform } from "../../../src/engine/platform/browser.ts";
import { filesInMemory, memoryFolder } from "../../../src/engine/platform/browser-memory.ts";
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

describe("files in memory", () => {
  const names = (folder: string) => filesInMemory(folder).map(([name]) => name);

  test("a folder of given files is read by names and ranges, and replaced as a whole", async () => {
    const folder = memoryFolder("model", [
      ["config.json", new Blob(['{"a":1}'])],
      ["more/x.bin", new Blob([content])],
    ]);
    expect(folder).toBe("memory:model");
    const path = platform.joinPath(folder, "more", "x.bin");
    expect([platform.baseName(path), await platform.exists(folder)]).toEqual(["x.bin", "folder"]);
    expect(
      await Promise.all(["more", "more/x.bin", "none"].map((name) => platform.exists(`${folder}/${name}`))),
    ).toEqual(["folder", "file", undefined]);
    expect(await platform.list(folder)).toEqual(["config.json", "more"]);
    expect(await platform.readText(`${folder}/config.json`)).toBe('{"a":1}');
    const file = await platform.openFile(path);
    expect([file.size, ...(await file.read(40, 3))]).toEqual([100, 40, 41, 42]);
    await expect(file.read(90, 20)).rejects.toThrow("the file ends at 100");
    await expect(platform.openFile(`${folder}/none`)).rejects.toThrow(FileError);
    memoryFolder("model", [["a.json", new Blob()]]);
    expect(names("memory:model")).toEqual(["a.json"]);
  });

  test("what is written is whole or not there, and bytes are those of the moment that they were given in", async () => {
    const folder = memoryFolder("out", []);
    const reused = new Uint8Array(2);
    function* pieces() {
      for (let i = 0; i < 3; i++) yield reused.fill(i);
    }
    await platform.writeFileAtomic(`${folder}/x`, pieces());
    const [[, written] = []] = filesInMemory(folder);
    expect([...new Uint8Array((await written?.arrayBuffer()) ?? [])]).toEqual([0, 0, 1, 1, 2, 2]);
    const failing = (async function* () {
      yield reused;
      throw new Error("the source ends");
    })();
    await expect(platform.writeFileAtomic(`${folder}/x`, failing)).rejects.toThrow("the source ends");
    expect(filesInMemory(folder)[0]?.[1].size).toBe(6);
    await platform.append(`${folder}/log`, "a");
    await platform.append(`${folder}/log`, "b");
    expect(await platform.readText(`${folder}/log`)).toBe("ab");
    await expect(platform.writeFileAtomic(`${folder}/none/x`, "")).rejects.toThrow("its folder does not exist");
    await expect(platform.makeFolder(`${folder}/x`)).rejects.toThrow("is a file");
  });

  test("folders are renamed and removed with all that is in them, and leave others alone", async () => {
    const folder = memoryFolder("runs", [
      ["one/a", new Blob(["1"])],
      ["one-more/b", new Blob(["2"])],
    ]);
    await platform.makeFolder(`${folder}/one/empty`);
    await platform.renameFolder(`${folder}/one`, `${folder}/two`);
    expect(names(folder)).toEqual(["one-more/b", "two/a"]);
    expect(await platform.list(`${folder}/two`)).toEqual(["a", "empty"]);
    await expect(platform.renameFolder(`${folder}/two`, "opfs:two")).rejects.toThrow("stays where it is kept");
    await platform.removeFile(`${folder}/two/a`);
    await platform.removeFolder(`${folder}/one-more`);
    expect(await platform.list(folder)).toEqual(["two"]);
    expect(names(folder)).toEqual([]);
  });
});
