/** File operations of the Node platform: what a reader can count on, and what each failure says. */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { readFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { platform as browserPlatform } from "../../../src/engine/platform/browser.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { FileError } from "../../../src/errors.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "kto-files-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

async function* parts(...chunks: number[][]) {
  for (const chunk of chunks) yield Uint8Array.from(chunk);
}

describe("writeFileAtomic", () => {
  test("writes text, chunks and asynchronous chunks, and replaces what was there", async () => {
    const path = join(folder, "out.bin");
    await platform.writeFileAtomic(path, "häuser");
    expect(readFileSync(path, "utf8")).toBe("häuser");
    await platform.writeFileAtomic(path, [Uint8Array.of(1, 2), Uint8Array.of(), Uint8Array.of(3)]);
    expect([...readFileSync(path)]).toEqual([1, 2, 3]);
    await platform.writeFileAtomic(path, parts([4], [5, 6]));
    expect([...readFileSync(path)]).toEqual([4, 5, 6]);
    expect(readdirSync(folder)).toEqual(["out.bin"]);
  });

  test("writes the bytes of a window into a larger buffer, and those alone", async () => {
    const path = join(folder, "window.bin");
    const floats = Float32Array.of(1, 2, 3, 4);
    await platform.writeFileAtomic(path, [new Uint8Array(floats.buffer, 4, 8)]);
    expect([...new Float32Array(new Uint8Array(readFileSync(path)).buffer)]).toEqual([2, 3]);
  });

  test("a pipe is written into and stays a pipe, as a device does", async () => {
    const path = join(folder, "pipe");
    execFileSync("mkfifo", [path]);
    const [text] = await Promise.all([
      readFile(path, "utf8"),
      platform.writeFileAtomic(
        path,
        ["a", "b"].map((one) => Buffer.from(one)),
      ),
    ]);
    expect(text).toBe("ab");
    expect(statSync(path).isFIFO()).toBe(true);
    expect(readdirSync(folder)).toEqual(["pipe"]);
  });

  test("a writer that fails midway leaves the old file and nothing else; its own error comes through", async () => {
    const path = join(folder, "kept.txt");
    writeFileSync(path, "old");
    const failing = (function* () {
      yield Uint8Array.of(1);
      throw new RangeError("the writer's own");
    })();
    await expect(platform.writeFileAtomic(path, failing)).rejects.toThrow(RangeError);
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["kept.txt"]);
  });

  test("missing folder, folder in the way, file in the path: FileError with the path and the reason", async () => {
    const missing = join(folder, "no", "such", "file.txt");
    await expect(platform.writeFileAtomic(missing, "x")).rejects.toThrow(
      new FileError(`Cannot write ${missing}: the folder ${join(folder, "no", "such")} does not exist.`),
    );
    mkdirSync(join(folder, "taken"));
    await expect(platform.writeFileAtomic(join(folder, "taken"), "x")).rejects.toThrow("it is a folder, not a file");
    writeFileSync(join(folder, "plain"), "");
    await expect(platform.writeFileAtomic(join(folder, "plain", "x"), "x")).rejects.toThrow("not a folder");
    expect(readdirSync(folder).sort()).toEqual(["plain", "taken"]);
  });

  test.runIf(existsSync("/dev/full"))("a full disk is told as such", async () => {
    // /dev/full fails each write with ENOSPC; appending reaches it without the rename of an atomic write.
    await expect(platform.append("/dev/full", "x")).rejects.toThrow(
      new FileError("Cannot write /dev/full: no space is left on the disk."),
    );
  });
});

describe("reading", () => {
  test("a range comes in an ArrayBuffer of its own, so that typed arrays can be laid over it", async () => {
    const path = join(folder, "weights.bin");
    writeFileSync(path, new Uint8Array(Float32Array.of(0.5, 1.5, 2.5, 3.5).buffer));
    const file = await platform.openFile(path);
    const bytes = await file.read(4, 8);
    expect(file.size).toBe(16);
    expect(bytes.byteOffset).toBe(0);
    expect(bytes.buffer.byteLength).toBe(8);
    expect([...new Float32Array(bytes.buffer)]).toEqual([1.5, 2.5]);
    expect(await file.read(16, 0)).toHaveLength(0);
    await file.close();
  });

  test("a range beyond the end is an error that says where the file ends", async () => {
    const path = join(folder, "short.bin");
    writeFileSync(path, new Uint8Array(10));
    const file = await platform.openFile(path);
    await expect(file.read(6, 8)).rejects.toThrow(
      new FileError(`Cannot read ${path}: bytes 6 to 14 were asked for, the file ends at 10.`),
    );
    await file.close();
  });

  test("missing files and folders are refused by name", async () => {
    const missing = join(folder, "nothing");
    await expect(platform.openFile(missing)).rejects.toThrow(
      new FileError(`Cannot open ${missing}: it does not exist.`),
    );
    await expect(platform.readText(missing)).rejects.toThrow(`Cannot read ${missing}: it does not exist.`);
    await expect(platform.openFile(folder)).rejects.toThrow("it is a folder, not a file");
    await expect(platform.readText(folder)).rejects.toThrow("it is a folder, not a file");
    await expect(platform.list(missing)).rejects.toThrow(FileError);
  });

  test("exists tells files from folders, and a path through a file is not there", async () => {
    writeFileSync(join(folder, "file"), "");
    expect(await platform.exists(join(folder, "file"))).toBe("file");
    expect(await platform.exists(folder)).toBe("folder");
    expect(await platform.exists(join(folder, "nothing"))).toBeUndefined();
    expect(await platform.exists(join(folder, "file", "below"))).toBeUndefined();
  });

  test("list is sorted, append creates and adds", async () => {
    await platform.append(join(folder, "b.jsonl"), "1\n");
    appendFileSync(join(folder, "a.jsonl"), "");
    await platform.append(join(folder, "b.jsonl"), "2\n");
    expect(await platform.list(folder)).toEqual(["a.jsonl", "b.jsonl"]);
    expect(await platform.readText(join(folder, "b.jsonl"))).toBe("1\n2\n");
  });
});

describe("checkWritable", () => {
  test("creates the folder and leaves nothing in it", async () => {
    const made = join(folder, "runs", "one");
    await platform.checkWritable(made);
    expect(readdirSync(made)).toEqual([]);
  });

  test("a file in the place of the folder is refused", async () => {
    const path = join(folder, "occupied");
    writeFileSync(path, "");
    await expect(platform.checkWritable(path)).rejects.toThrow(FileError);
    await expect(platform.checkWritable(path)).rejects.toThrow(`Cannot write to the folder ${path}`);
  });

  // Root writes everywhere, except where the kernel itself refuses.
  test.runIf(existsSync("/proc/self"))("a folder in which nothing can be created is refused", async () => {
    await expect(platform.checkWritable("/proc/self/task")).rejects.toThrow(FileError);
    // Node 20's recursive mkdir does not return from this one.
    await expect(platform.checkWritable("/proc/self/task/runs/one")).rejects.toThrow("it cannot be created there");
  });
});

describe("the environment", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  test("a variable that is empty is not set", () => {
    vi.stubEnv("KTO_TEST_VARIABLE", "x");
    expect(platform.environment("KTO_TEST_VARIABLE")).toBe("x");
    vi.stubEnv("KTO_TEST_VARIABLE", "");
    expect(platform.environment("KTO_TEST_VARIABLE")).toBeUndefined();
    expect(platform.homeFolder()).toBe(homedir());
  });

  test("the cache lies where KTO_CACHE says, else in the user's folder of caches", () => {
    vi.stubEnv("KTO_CACHE", "/there");
    vi.stubEnv("XDG_CACHE_HOME", "/caches");
    expect(platform.cacheFolder()).toBe("/there");
    vi.stubEnv("KTO_CACHE", "");
    expect(platform.cacheFolder()).toBe(join("/caches", "kto-webgpu"));
    vi.stubEnv("XDG_CACHE_HOME", "");
    expect(platform.cacheFolder()).toBe(join(homedir(), ".cache", "kto-webgpu"));
  });
});

describe.each([
  ["Node", platform],
  ["browser", browserPlatform],
])("sha256 (%s)", (_, { sha256 }) => {
  const hash = (...pieces: Uint8Array[]) => {
    const one = sha256();
    for (const piece of pieces) one.update(piece);
    return one.digest();
  };

  // FIPS 180-2, appendix B, and NIST's vector for the empty message.
  test.each([
    ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
    [
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ],
  ])("%j", (text, digest) => {
    expect(hash(new TextEncoder().encode(text))).toBe(digest);
  });

  test("bytes in pieces of any length hash as those in one", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 150 }), { maxLength: 6 }), (pieces) => {
        const whole = createHash("sha256").update(Buffer.concat(pieces)).digest("hex");
        expect(hash(...pieces)).toBe(whole);
      }),
      { seed: 5, numRuns: 200 },
    );
  });
});

test("a folder is renamed with what it holds, and not over another one that holds something", async () => {
  const [from, to] = [join(folder, "rename-from"), join(folder, "rename-to")];
  await platform.makeFolder(from);
  await platform.writeFileAtomic(join(from, "a.txt"), "a");
  await platform.renameFolder(from, to);
  expect(await platform.exists(from)).toBeUndefined();
  expect(await platform.readText(join(to, "a.txt"))).toBe("a");
  await platform.makeFolder(from);
  await platform.writeFileAtomic(join(from, "b.txt"), "b");
  await expect(platform.renameFolder(from, to)).rejects.toThrow(`Cannot rename the folder ${from}: `);
  expect(await platform.list(to)).toEqual(["a.txt"]);
  await platform.removeFolder(to);
  await platform.removeFolder(to); // content if there is none
  expect(await platform.exists(to)).toBeUndefined();
});

describe("work within a time", () => {
  test("breaks off what does not end, and gives back what does", () => {
    expect(platform.withinTime(1000, () => 7)).toBe(7);
    expect(() =>
      platform.withinTime(20.5, () => {
        for (;;);
      }),
    ).toThrow("no end within 0.0205 s");
    expect(() => platform.withinTime(1000, () => JSON.parse("{"))).toThrow(SyntaxError);
  });
});
