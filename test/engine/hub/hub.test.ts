/** Models and data sets from a hub: what is downloaded, where it lies, and what happens when things go wrong. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  type DownloadProgress,
  type ModelFetchOptions,
  resolveDatasetFiles,
  resolveModelFolder,
} from "../../../src/engine/hub/resolve.ts";
import { ConfigError, FileError, ModelFormatError } from "../../../src/errors.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";
import { collectGarbage } from "../../helpers/garbage.ts";
import { HeldTimers } from "../../helpers/held-timers.ts";
import { FakeHub, faults, gitHash, sha256 } from "../../helpers/hub-server.ts";

const folder = temporaryFolder();
const id = "tiny/llama";
const config = readFileSync(`${llama}/config.json`);
const weights = readFileSync(`${llama}/model.safetensors`);
const wholeModel = { "config.json": config, "model.safetensors": weights };
const hub = new FakeHub(id, wholeModel);
let cache = "";

beforeAll(async () => {
  for (const name of ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE"]) {
    vi.stubEnv(name, "");
  }
  vi.stubEnv("HF_HOME", join(folder, "home"));
  await hub.start();
});
afterAll(() => {
  hub.stop();
  vi.unstubAllEnvs();
});
beforeEach(() => {
  cache = freshPath(folder, "hub");
  hub.files = wholeModel;
  hub.commit = "0123456789abcdef0123456789abcdef01234567";
  hub.take();
  for (const what of Object.keys(hub.faults)) delete hub.faults[what];
});

/** Longer than any test takes, so that a stall is one where a test lets the time run out. */
const stallMs = 24 * 3_600_000;
const patience = { attempts: 3, firstDelayMs: 1, longestDelayMs: 1500, stallMs };

async function resolve(options: ModelFetchOptions = {}, name = id): Promise<string> {
  return await resolveModelFolder(name, { endpoint: hub.endpoint, cacheFolder: cache, patience, ...options });
}

const repository = () => join(cache, "models--tiny--llama");
const blobs = () => readdirSync(join(repository(), "blobs")).sort();
/** Breaks a download off once so many bytes more lie in the cache. */
const cutAfter = (bytes: number) =>
  faults.cutAfter(bytes, () => {
    const partial = blobs().filter((name) => name.endsWith(".incomplete"));
    return Math.max(0, ...partial.map((name) => statSync(join(repository(), "blobs", name)).size));
  });
const ranges = () => hub.seen.filter(({ what }) => what.startsWith("CDN")).map(({ range }) => range);
const savedWeights = (path: string) => readFileSync(join(path, "model.safetensors"));

describe("the cache", () => {
  test("has huggingface_hub's layout: blobs by ETag, a ref with the commit, a snapshot of relative links", async () => {
    const path = await resolve();
    expect(path).toBe(join(repository(), "snapshots", hub.commit));
    expect(blobs()).toEqual([gitHash(config), sha256(weights)].sort());
    expect(readFileSync(join(repository(), "refs", "main"), "utf8")).toBe(hub.commit);
    expect(readlinkSync(join(path, "config.json"))).toBe(join("..", "..", "blobs", gitHash(config)));
    expect(readlinkSync(join(path, "model.safetensors"))).toBe(join("..", "..", "blobs", sha256(weights)));
    expect(savedWeights(path)).toEqual(weights);
    expect(readdirSync(repository()).sort()).toEqual(["blobs", "refs", "snapshots"]);
  });

  test("is used the second time: nothing but the listing is asked for", async () => {
    await resolve();
    expect(hub.take()).toEqual([
      ...["api", "HEAD config.json", "GET config.json"],
      ...["HEAD model.safetensors", "GET model.safetensors", "CDN model.safetensors"],
    ]);
    await resolve();
    expect(hub.take()).toEqual(["api"]);
  });

  test("a new commit downloads what changed and links what did not", async () => {
    await resolve();
    const [first, changed] = [hub.commit, Buffer.concat([config, Buffer.from("\n")])];
    hub.commit = "f".repeat(40);
    hub.files = { ...wholeModel, "config.json": changed };
    hub.take();
    const path = await resolve();
    expect(hub.take()).toEqual(["api", "HEAD config.json", "GET config.json", "HEAD model.safetensors"]);
    expect(readFileSync(join(path, "config.json"))).toEqual(changed);
    expect(readdirSync(join(repository(), "snapshots")).sort()).toEqual([first, hub.commit].sort());
    expect(readFileSync(join(repository(), "refs", "main"), "utf8")).toBe(hub.commit);
  });

  test("revisions: nested refs, and none for a commit", async () => {
    await resolve({ revision: "refs/pr/1" });
    expect(readFileSync(join(repository(), "refs", "refs", "pr", "1"), "utf8")).toBe(hub.commit);
    await resolve({ revision: hub.commit });
    expect(readdirSync(join(repository(), "refs"))).toEqual(["refs"]);
    await expect(resolve({ revision: "../x" })).rejects.toThrow(ConfigError);
    await expect(resolve({ revision: "../x" })).rejects.toThrow('The revision "../x" cannot be one');
  });

  test.each([
    [{ HF_HUB_CACHE: "A" }, "A"],
    [{ HF_HOME: "B" }, join("B", "hub")],
    [{ HF_HOME: "", XDG_CACHE_HOME: "C" }, join("C", "huggingface", "hub")],
    [{ HF_HOME: "", XDG_CACHE_HOME: "", HOME: "D" }, join("D", ".cache", "huggingface", "hub")],
  ])("lies where %j says", async (environment, expected) => {
    const root = freshPath(folder, "root");
    for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value && join(root, value));
    try {
      const path = await resolveModelFolder(id, { endpoint: hub.endpoint, patience });
      expect(path).toBe(join(root, expected, "models--tiny--llama", "snapshots", hub.commit));
    } finally {
      for (const name of ["HF_HUB_CACHE", "XDG_CACHE_HOME"]) vi.stubEnv(name, "");
      vi.stubEnv("HF_HOME", join(folder, "home"));
      vi.stubEnv("HOME", folder);
    }
  });

  test("two calls at once end with whole files", async () => {
    const [first, second] = await Promise.all([resolve(), resolve()]);
    expect(first).toBe(second);
    expect(savedWeights(first)).toEqual(weights);
    expect(blobs()).toEqual([gitHash(config), sha256(weights)].sort());
  });

  test("an id without an owner", async () => {
    const plain = await new FakeHub("gpt2", wholeModel).start();
    const path = await resolve({ endpoint: plain.endpoint }, "gpt2");
    plain.stop();
    expect(path).toBe(join(cache, "models--gpt2", "snapshots", plain.commit));
  });
});

describe("only what is needed", () => {
  const some = Buffer.from("{}");

  test("configuration, tokenizer, templates and safetensors; no other format of the weights", async () => {
    const needed = [
      ...["added_tokens.json", "additional_chat_templates/tools.jinja", "chat_template.jinja", "config.json"],
      ...["generation_config.json", "merges.txt", "model.safetensors", "special_tokens_map.json", "tokenizer.json"],
      ...["tokenizer.model", "tokenizer_config.json", "vocab.json"],
    ];
    const others = ["README.md", "pytorch_model.bin", "onnx/model.onnx", "model-q4.gguf", "tf_model.h5", "train.py"];
    hub.files = Object.fromEntries([...needed, ...others].map((name) => [name, Buffer.from(name)]));
    hub.files["config.json"] = config;
    const path = await resolve();
    expect(
      readdirSync(path, { recursive: true })
        .filter((name) => name !== "additional_chat_templates")
        .sort(),
    ).toEqual(needed);
    expect(readlinkSync(join(path, "additional_chat_templates", "tools.jinja"))).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\//);
  });

  test("of shards, those that the index names; it must name files that are there", async () => {
    const index = (...shards: string[]) =>
      Buffer.from(JSON.stringify({ weight_map: Object.fromEntries(shards.map((shard, i) => [`t${i}`, shard])) }));
    hub.files = {
      "config.json": config,
      "model.safetensors.index.json": index("a.safetensors", "b.safetensors", "a.safetensors"),
      ...{ "a.safetensors": some, "b.safetensors": weights, "c.safetensors": some },
    };
    const path = await resolve();
    const names = ["a.safetensors", "b.safetensors", "config.json", "model.safetensors.index.json"];
    expect(readdirSync(path).sort()).toEqual(names);

    hub.commit = "e".repeat(40);
    hub.files = { "config.json": config, "model.safetensors.index.json": index("../up.safetensors") };
    await expect(resolve()).rejects.toThrow(
      new ModelFormatError(
        `"${id}" on ${hub.endpoint} has no ../up.safetensors, which its model.safetensors.index.json names as a shard.`,
      ),
    );
    hub.commit = "d".repeat(40);
    hub.files = { "config.json": config, "model.safetensors.index.json": some };
    await expect(resolve()).rejects.toThrow('has no "weight_map" that names shards');
    hub.commit = "c".repeat(40);
    hub.files = { "config.json": config, "model.safetensors.index.json": Buffer.from("{") };
    await expect(resolve()).rejects.toThrow("model.safetensors.index.json is not valid JSON");
  });

  test("a model that is not supported is refused before its weights are downloaded", async () => {
    hub.files = { "config.json": Buffer.from('{"model_type": "mamba"}'), "model.safetensors": weights };
    await expect(resolve()).rejects.toThrow(/config\.json: .*"mamba"/);
    expect(hub.take()).toEqual(["api", "HEAD config.json", "GET config.json"]);
  });

  test("no weights where none are wanted, and later runs still have a whole model to fall back on", async () => {
    hub.files = { ...wholeModel, "tokenizer.json": some };
    const path = await resolve({ weights: false });
    expect(readdirSync(path).sort()).toEqual(["config.json", "tokenizer.json"]);
    expect(await resolve({ weights: false, offline: true })).toBe(path);
    await expect(resolve({ offline: true })).rejects.toThrow("its weights were not downloaded; run once online");
    expect(savedWeights(await resolve())).toEqual(weights);
    hub.commit = "9".repeat(40);
    expect(await resolve({ weights: false })).not.toBe(path);
    expect(await resolve({ offline: true })).toBe(path);
    hub.commit = "8".repeat(40);
    hub.files = { "config.json": config, "pytorch_model.bin": some };
    expect(readdirSync(await resolve({ weights: false }))).toEqual(["config.json"]);
  });

  test("an adapter alone", async () => {
    hub.files = { "adapter_config.json": some, "adapter_model.safetensors": weights, "README.md": some };
    expect(readdirSync(await resolve()).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
  });

  test.each([
    [
      "PyTorch files alone",
      { "config.json": some, "pytorch_model.bin": some },
      /another format, so choose a repository/,
    ],
    ["no weights", { "config.json": some }, /has no model\.safetensors: there are no weights to load/],
    ["no config.json", { "model.safetensors": some }, /has no config\.json/],
  ])("%s: refused before anything is downloaded", async (_, files, sentence) => {
    hub.files = files;
    await expect(resolve()).rejects.toThrow(ModelFormatError);
    await expect(resolve()).rejects.toThrow(sentence);
    expect(hub.take()).toEqual(["api", "api"]);
  });

  test("names that could lead out of the folder are refused where they are needed, and there alone", async () => {
    hub.files = { ...wholeModel, "../../evil": some, "runs/12:30:00.log": some };
    expect(readdirSync(await resolve()).sort()).toEqual(Object.keys(wholeModel).sort());
    hub.files = { ...wholeModel, "additional_chat_templates/C:x.jinja": some };
    hub.commit = "b".repeat(40);
    await expect(resolve()).rejects.toThrow(
      'lists a file named "additional_chat_templates/C:x.jinja", whose name could lead out of its folder',
    );
  });
});

describe("the token", () => {
  test("goes to the hub and never to the host that it redirects to", async () => {
    await resolve({ token: "hf_secret" });
    const byHost = (cdn: boolean) => hub.seen.filter(({ what }) => what.startsWith("CDN") === cdn);
    expect(new Set(byHost(false).map(({ authorization }) => authorization))).toEqual(new Set(["Bearer hf_secret"]));
    expect(byHost(true).map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  test("comes from HF_TOKEN, else from the token file", async () => {
    const home = join(folder, "home");
    mkdirSync(home, { recursive: true });
    writeFileSync(join(home, "token"), "hf_file\n");
    await resolve();
    expect(hub.seen[0]?.authorization).toBe("Bearer hf_file");
    rmSync(join(home, "token"));
    writeFileSync(join(home, "other"), "hf_other");
    vi.stubEnv("HF_TOKEN_PATH", join(home, "other"));
    hub.take();
    await resolve();
    expect(hub.seen[0]?.authorization).toBe("Bearer hf_other");
    vi.stubEnv("HF_TOKEN", "hf_environment");
    hub.take();
    await resolve();
    expect(hub.seen[0]?.authorization).toBe("Bearer hf_environment");
    vi.stubEnv("HF_TOKEN", "");
    vi.stubEnv("HF_TOKEN_PATH", "");
    hub.take();
    await resolve();
    expect(hub.seen[0]?.authorization).toBeUndefined();
  });
});

describe("a mirror that redirects everything to the hub", () => {
  let mirror = "";
  let server: Server;
  const seen: (string | undefined)[] = [];
  beforeEach(async () => {
    seen.length = 0;
    server = createServer(({ headers, url }, response) => {
      seen.push(headers.authorization);
      response.writeHead(308, { Location: `${hub.endpoint}${url}` }).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterEach(() => {
    server.close();
    server.closeAllConnections();
  });

  test("is followed for the listing, the descriptions and the files; the token goes to nobody but the mirror", async () => {
    const path = await resolve({ endpoint: mirror, token: "hf_secret" });
    expect(savedWeights(path)).toEqual(weights);
    expect(blobs()).toEqual([gitHash(config), sha256(weights)].sort());
    expect(seen).toEqual(Array(5).fill("Bearer hf_secret"));
    expect(hub.seen.map(({ authorization }) => authorization)).toEqual(Array(6).fill(undefined));
  });
});

describe("the listing", () => {
  const listing = () =>
    JSON.stringify({ sha: hub.commit, siblings: Object.keys(hub.files).map((rfilename) => ({ rfilename })) });

  test("may take longer than a stall: with each piece the time begins again", async () => {
    const deadlines = new HeldTimers(stallMs);
    const pieces = 9;
    let startedBefore = 0;
    hub.faults.api = [
      async (response) => {
        const text = listing();
        const step = Math.ceil(text.length / pieces);
        for (let at = 0; at < text.length; at += step) {
          const { started } = deadlines;
          response.write(text.slice(at, at + step));
          while (deadlines.started === started) await setImmediate();
        }
        startedBefore = deadlines.started;
        response.end();
      },
    ];
    const path = await resolve({ patience: { ...patience, attempts: 1 } });
    deadlines.restore();
    expect(savedWeights(path)).toEqual(weights);
    expect(startedBefore).toBeGreaterThanOrEqual(pieces);
  });

  test("that does not end is read to a limit, once", async () => {
    let sent = 0;
    hub.faults.api = [
      (response) => {
        const piece = Buffer.alloc(2 ** 20, " ");
        const more = () => {
          do sent++;
          while (response.write(piece));
        };
        response.on("drain", more);
        more();
      },
    ];
    await expect(resolve()).rejects.toThrow(
      /does not answer as a Hugging Face hub does \(its answer is longer than 33554432 bytes\); check HF_ENDPOINT\.$/,
    );
    expect(sent).toBeLessThan(100);
    expect(hub.take()).toEqual(["api"]);
  });

  test.each(["file:///etc/passwd", "data:application/json,{}", "http://"])(
    "that redirects to %s is refused at once",
    async (location) => {
      hub.faults.api = [faults.status(302, { Location: location })];
      await expect(resolve()).rejects.toThrow(
        `its server redirects to "${location}", which is no http or https address; check HF_ENDPOINT.`,
      );
      expect(hub.take()).toEqual(["api"]);
    },
  );
});

describe("cuts and stalls", () => {
  test("a cut download goes on with a Range request, and the bytes are right", async () => {
    hub.faults["CDN model.safetensors"] = [cutAfter(30_000), cutAfter(20_000)];
    expect(savedWeights(await resolve())).toEqual(weights);
    expect(ranges()).toEqual([undefined, "bytes=30000-", "bytes=50000-"]);
    expect(blobs()).toEqual([gitHash(config), sha256(weights)].sort());
  });

  test("a stall is given up and gone on from, also where garbage was collected meanwhile", async () => {
    hub.faults["CDN model.safetensors"] = [faults.stallAfter(12_345)];
    const deadlines = new HeldTimers(stallMs);
    const path = await resolve({
      onProgress: ({ bytes }) => {
        if (bytes === config.length + 12_345) void collectGarbage().then(() => deadlines.runOut());
      },
    });
    deadlines.restore();
    expect(savedWeights(path)).toEqual(weights);
    expect(ranges()).toEqual([undefined, "bytes=12345-"]);
  });

  test("after the last attempt what came is kept, and the next run goes on from there", async () => {
    hub.faults["CDN model.safetensors"] = [10_000, 5_000, 1].map((bytes) => cutAfter(bytes));
    const error: unknown = await resolve().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FileError);
    expect(error).toHaveProperty(
      "message",
      `Cannot download ${hub.endpoint}/${id}/resolve/${hub.commit}/model.safetensors: the connection was cut (3 attempts); try again later, downloads go on where they stopped.`,
    );
    expect(blobs()).toEqual([gitHash(config), `${sha256(weights)}.free.incomplete`].sort());
    expect(existsSync(join(repository(), "refs"))).toBe(false);
    hub.take();
    expect(savedWeights(await resolve())).toEqual(weights);
    expect(hub.take()).not.toContain("GET config.json");
    expect(blobs()).toEqual([gitHash(config), sha256(weights)].sort());
  });

  test.each<[string, string, number, string | undefined]>([
    ["of a process that has ended", `${hostname().replace(/[^A-Za-z0-9]/g, "")}.2147483646.1.`, 0, "bytes=40000-"],
    ["of one that runs", `${hostname().replace(/[^A-Za-z0-9]/g, "")}.${process.pid}.999999.`, 0, undefined],
    ["of another machine", "elsewhere.1.1.", 60, undefined],
    ["of huggingface_hub, for a while", "", 60, undefined],
    ["of anybody, after a long while", "", 3600, "bytes=40000-"],
  ])("an unfinished file %s", async (_, owner, ageSeconds, range) => {
    mkdirSync(join(repository(), "blobs"), { recursive: true });
    const left = join(repository(), "blobs", `${sha256(weights)}.${owner}incomplete`);
    writeFileSync(left, weights.subarray(0, 40_000));
    const then = Date.now() / 1000 - ageSeconds;
    utimesSync(left, then, then);
    expect(savedWeights(await resolve())).toEqual(weights);
    expect(ranges()).toEqual([range]);
    expect(existsSync(left)).toBe(range === undefined);
  });

  test("a server that ignores the range, or has another one, is begun again with", async () => {
    hub.faults["CDN model.safetensors"] = [cutAfter(30_000), faults.ignoreRange(weights)];
    expect(savedWeights(await resolve())).toEqual(weights);
    rmSync(cache, { recursive: true });
    hub.take();
    const wrong = faults.status(206, { "Content-Range": `bytes 7-9/${weights.length}` });
    hub.faults["CDN model.safetensors"] = [cutAfter(30_000), wrong];
    expect(savedWeights(await resolve())).toEqual(weights);
    expect(ranges()).toEqual([undefined, "bytes=30000-", undefined]);
  });
});

describe("damage and lies", () => {
  const sameLength = Buffer.from(weights);
  sameLength[50_000] = (sameLength[50_000] ?? 0) ^ 1;

  test("a wrong sha256 deletes the download and names it", async () => {
    hub.faults["CDN model.safetensors"] = [faults.send(sameLength)];
    await expect(resolve()).rejects.toThrow(
      new FileError(
        `The download of ${hub.endpoint}/${id}/resolve/${hub.commit}/model.safetensors is damaged and was deleted: its sha256 is ${sha256(sameLength)}, but the hub says ${sha256(weights)}; run the command again.`,
      ),
    );
    expect(blobs()).toEqual([gitHash(config)]);
    expect(savedWeights(await resolve())).toEqual(weights);
  });

  test("so does a wrong git hash of a small file", async () => {
    const other = Buffer.from(config);
    other[0] = 0x20;
    hub.faults["GET config.json"] = [faults.send(other)];
    await expect(resolve()).rejects.toThrow(`its sha1 is ${gitHash(other)}, but the hub says ${gitHash(config)}`);
    expect(blobs()).toEqual([]);
  });

  test("another length than was announced is refused, and nothing of it stays", async () => {
    hub.faults["CDN model.safetensors"] = [faults.send(weights.subarray(0, 99))];
    await expect(resolve()).rejects.toThrow(`sends 99 bytes in place of the ${weights.length} that it had announced`);
    hub.faults["CDN model.safetensors"] = [faults.sendChunked(Buffer.concat([weights, weights]))];
    await expect(resolve()).rejects.toThrow(`sends more than the ${weights.length} bytes that it had announced`);
    expect(blobs()).toEqual([gitHash(config)]);
  });

  test("a file whose length nobody states is read no further than small files go, and nothing of it stays", async () => {
    hub.faults["HEAD config.json"] = [faults.status(200, { ETag: `"${gitHash(config)}"` })];
    hub.faults["GET config.json"] = [faults.sendChunked(Buffer.alloc(65 * 2 ** 20, " "))];
    await expect(resolve()).rejects.toThrow(
      new FileError(
        `Cannot download ${hub.endpoint}/${id}/resolve/${hub.commit}/config.json: its server does not say how long the file is and sends more than 64 MiB; a proxy or mirror is faulty, so set HF_ENDPOINT to another one.`,
      ),
    );
    expect(blobs()).toEqual([]);
  });

  test("an end that comes too early without a word is a cut, and a server that then has no more is begun again with", async () => {
    hub.faults["CDN model.safetensors"] = [faults.sendChunked(weights.subarray(0, 99)), faults.status(416)];
    expect(savedWeights(await resolve())).toEqual(weights);
    expect(ranges()).toEqual([undefined, "bytes=99-", undefined]);
  });
});

describe("refusals and overload", () => {
  test.each<[string, number, Record<string, string>, ModelFetchOptions, RegExp]>([
    ["401", 401, {}, {}, /^The hub does not show the model "tiny\/llama" \(HTTP 401\): .* set HF_TOKEN to a token/],
    ["401 with a token", 401, {}, { token: "x" }, /whether the token in HF_TOKEN is still valid/],
    [
      "gated",
      401,
      { "X-Error-Code": "GatedRepo" },
      {},
      /is restricted .* ask for it on http.*\/tiny\/llama and set HF_T/,
    ],
    ["403", 403, {}, { token: "x" }, /restricted \(HTTP 403\).* use the HF_TOKEN of an account that has it/],
    ["404", 404, {}, {}, /neither a local file or folder "tiny\/llama" nor the model "tiny\/llama" on http/],
    ["no such revision", 404, { "X-Error-Code": "RevisionNotFound" }, { revision: "v9" }, /has no revision "v9"; give/],
    ["another", 418, {}, {}, /refused the model "tiny\/llama": HTTP 418/],
  ])("%s is one sentence with the remedy, asked once", async (_, status, headers, options, sentence) => {
    hub.faults.api = [faults.status(status, headers)];
    const error: unknown = await resolve(options).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FileError);
    expect(String(error)).toMatch(new RegExp(sentence.source.replace(/^\^/, "")));
    expect(hub.take()).toEqual(["api"]);
  });

  test("gated at the file, though the listing is open", async () => {
    hub.faults["HEAD config.json"] = [faults.status(403, { "X-Error-Code": "GatedRepo" })];
    await expect(resolve()).rejects.toThrow('Access to the model "tiny/llama" is restricted');
    hub.faults["HEAD config.json"] = [faults.status(404)];
    await expect(resolve()).rejects.toThrow("lists a file config.json but does not have it (HTTP 404)");
  });

  test("429 waits as long as Retry-After says; 500 and 503 pass as well", async () => {
    hub.faults.api = [faults.status(429, { "Retry-After": "1" }), faults.status(500)];
    hub.faults["CDN model.safetensors"] = [faults.status(503)];
    const timers = vi.spyOn(globalThis, "setTimeout");
    expect(savedWeights(await resolve())).toEqual(weights);
    expect(timers.mock.calls.filter(([, ms]) => ms === 1000)).toHaveLength(1);
    timers.mockRestore();
  });

  test("a server that goes on failing, or asks for too long a wait, ends the run", async () => {
    hub.faults.api = [500, 502, 503].map((code) => faults.status(code));
    await expect(resolve()).rejects.toThrow(
      `Cannot ask ${hub.endpoint} for the model "tiny/llama", which is neither a local path nor in the cache: HTTP 503 (3 attempts); try again later`,
    );
    hub.faults.api = [faults.status(429, { "Retry-After": "3600" })];
    await expect(resolve()).rejects.toThrow("HTTP 429, which asks to wait 3600 s; try again later");
    hub.faults.api = [faults.status(429, { "Retry-After": new Date(Date.now() + 7_200_000).toUTCString() })];
    await expect(resolve()).rejects.toThrow(/asks to wait 7[12]\d\d s/);
  });

  test("a server that is no hub", async () => {
    hub.faults.api = [faults.send(Buffer.from("<html>"))];
    await expect(resolve()).rejects.toThrow(
      'does not answer as a Hugging Face hub does (it answers "<html>"); check HF_ENDPOINT',
    );
    hub.faults["HEAD config.json"] = [faults.status(200)];
    await expect(resolve()).rejects.toThrow("names no ETag, so this is no Hugging Face hub; check HF_ENDPOINT");
    await expect(resolve({ endpoint: "huggingface.co" })).rejects.toThrow(
      new ConfigError('HF_ENDPOINT is "huggingface.co"; it must be the http or https address of a hub.'),
    );
    hub.faults.api = Array.from({ length: 12 }, () => (response, _body, _start, request) => {
      response.writeHead(307, { Location: request.url ?? "" }).end();
    });
    await expect(resolve()).rejects.toThrow("redirects more than 10 times");
  });
});

describe("offline", () => {
  test("the cached copy is used, and nothing is asked for", async () => {
    const path = await resolve();
    hub.take();
    expect(await resolve({ offline: true })).toBe(path);
    expect(await resolve({ offline: true, revision: hub.commit })).toBe(path);
    for (const name of ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]) {
      vi.stubEnv(name, "true");
      expect(await resolve()).toBe(path);
      vi.stubEnv(name, "");
    }
    expect(hub.take()).toEqual([]);
  });

  test("without a cached copy, or with a part of one, it is said what is missing", async () => {
    await expect(resolve({ offline: true })).rejects.toThrow(
      new FileError(
        `The hub is offline (HF_HUB_OFFLINE), and the model "tiny/llama" is neither a local path nor, in revision "main", in the cache ${cache}; run once online.`,
      ),
    );
    rmSync(join(await resolve(), "model.safetensors"));
    await expect(resolve({ offline: true })).rejects.toThrow(
      /the cached copy .* has no model\.safetensors: its weights were not downloaded; run once online/,
    );
  });

  test("a hub that cannot be reached leaves the cached copy, with a warning", async () => {
    const path = await resolve();
    const closed = await new FakeHub(id, wholeModel).start();
    closed.stop();
    const warnings: string[] = [];
    const onWarning = (sentence: string) => warnings.push(sentence);
    expect(await resolve({ endpoint: closed.endpoint, onWarning })).toBe(path);
    expect(warnings).toEqual([
      `Cannot ask ${closed.endpoint} for the model "tiny/llama": the connection was refused (2 attempts); the cached copy of the model "tiny/llama" is used.`,
    ]);
    rmSync(cache, { recursive: true });
    await expect(resolve({ endpoint: closed.endpoint })).rejects.toThrow("the connection was refused (3 attempts)");
  });

  test("so does a new commit that cannot be downloaded to its end", async () => {
    const path = await resolve();
    hub.commit = "a".repeat(40);
    hub.files = { ...wholeModel, "model.safetensors": Buffer.concat([weights, weights]) };
    hub.faults["CDN model.safetensors"] = [1, 1, 1].map((bytes) => cutAfter(bytes));
    const warnings: string[] = [];
    expect(await resolve({ onWarning: (sentence) => warnings.push(sentence) })).toBe(path);
    expect(warnings).toHaveLength(1);
  });
});

describe("names", () => {
  test("a path that exists wins over an id, and a revision then has no meaning", async () => {
    const warnings: string[] = [];
    expect(await resolve({ revision: "v2", onWarning: (sentence) => warnings.push(sentence) }, "src/engine")).toBe(
      "src/engine",
    );
    expect(warnings).toEqual(['src/engine is a local path, so the revision "v2" has no meaning for it.']);
    expect(hub.take()).toEqual([]);
  });

  test.each(["./nowhere", "/nowhere/model", "a/b/c", "a--b", "a..b", "-a/b", "a/b.git", "a b", "", "x".repeat(97)])(
    "%j is neither a path nor an id",
    async (name) => {
      await expect(resolve({}, name)).rejects.toThrow(
        new FileError(
          `The model folder "${name}" does not exist; give a local Hugging Face folder with config.json and model.safetensors, or an id on the Hugging Face hub ("owner/name").`,
        ),
      );
      expect(hub.take()).toEqual([]);
    },
  );
});

describe("a name that looks like a path", () => {
  test.each(["weights/model.safetensors", "model.gguf", "runs/policy.bin", "src/config.json"])(
    "%s, with a file's ending, is not asked of the hub",
    async (name) => {
      await expect(resolve({}, name)).rejects.toThrow(`The model folder "${name}" does not exist`);
      expect(hub.take()).toEqual([]);
    },
  );

  test.each([
    ["src/missing", /the connection was refused; try again later/],
    ["nowhere/missing", /the connection was refused \(3 attempts\); try again later/],
  ])("%s is asked for once if its folder is here", async (name, message) => {
    const closed = await new FakeHub(name, wholeModel).start();
    closed.stop();
    await expect(resolve({ endpoint: closed.endpoint }, name)).rejects.toThrow(message);
    await expect(
      resolveDatasetFiles(name, { endpoint: closed.endpoint, cacheFolder: cache, patience }),
    ).rejects.toThrow(message);
  });

  test("and is found on the hub, with as many attempts for its files as ever", async () => {
    const other = await new FakeHub("src/model", wholeModel).start();
    other.faults["HEAD config.json"] = [faults.status(503)];
    const path = await resolve({ endpoint: other.endpoint }, "src/model");
    other.stop();
    expect(savedWeights(path)).toEqual(weights);
  });
});

test("a fault that lasts, such as a server that does not speak TLS, is not tried again", async () => {
  const endpoint = hub.endpoint.replace("http:", "https:");
  const refused = resolve({ endpoint });
  await expect(refused).rejects.toThrow(/; check the network, and HF_ENDPOINT if it is set\.$/);
  await expect(refused).rejects.not.toThrow("attempts");
});

test("progress counts every byte once, over all files", async () => {
  const seen: DownloadProgress[] = [];
  hub.faults["CDN model.safetensors"] = [cutAfter(50_000)];
  await resolve({ onProgress: (progress) => seen.push(progress) });
  const total = config.length + weights.length;
  expect(seen.at(-1)).toEqual({ file: "model.safetensors", bytes: total, totalBytes: total });
  expect(seen.map(({ bytes }) => bytes)).toEqual(seen.map(({ bytes }) => bytes).toSorted((a, b) => a - b));
});

describe("data sets", () => {
  const rows = (name: string) => Buffer.from(`{"prompt": "${name}"}\n`);

  async function splits(files: string[], options = {}, readme?: string): Promise<Record<string, string[]>> {
    const content = Object.fromEntries(files.map((name) => [name, rows(name)]));
    if (readme !== undefined) content["README.md"] = Buffer.from(readme);
    const server = await new FakeHub("tiny/rows", content, "datasets").start();
    server.commit = gitHash(Buffer.from([...files, readme].join("\n")));
    try {
      const root = join(cache, "datasets--tiny--rows", "snapshots", server.commit);
      const settings = { endpoint: server.endpoint, cacheFolder: cache, patience, ...options };
      const found = await resolveDatasetFiles("tiny/rows", settings);
      return Object.fromEntries(
        Object.entries(found).map(([split, paths]) => {
          for (const path of paths) expect(lstatSync(path).isSymbolicLink()).toBe(true);
          return [split, paths.map((path) => path.slice(root.length + 1))];
        }),
      );
    } finally {
      server.stop();
    }
  }

  test("shards by split, in order; what holds no rows is left on the hub", async () => {
    const train = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
    const test = ["data/test-00000-of-00001.parquet"];
    const found = await splits([
      ...train.toReversed(),
      ...test,
      "dataset_infos.json",
      ".gitattributes",
      "data/_x.json",
    ]);
    expect(found).toEqual({ train, test });
    expect(await splits([...train, "data/train_prefs-00000-of-00001.parquet"])).toEqual({
      train,
      train_prefs: ["data/train_prefs-00000-of-00001.parquet"],
    });
  });

  test.each<[string[], Record<string, string[]>]>([
    [["train.jsonl", "dev.jsonl"], { train: ["train.jsonl"], validation: ["dev.jsonl"] }],
    [["my-train-set.csv", "test/a.csv"], { train: ["my-train-set.csv"], test: ["test/a.csv"] }],
    [["a.json", "b.json"], { train: ["a.json", "b.json"] }],
    [["a.json", "b.jsonl", "c.ndjson"], { train: ["a.json", "b.jsonl", "c.ndjson"] }],
    [["train.jsonl", "test.parquet"], { train: ["train.jsonl"], test: ["test.parquet"] }],
  ])("%j", async (files, expected) => {
    const warnings: string[] = [];
    expect(await splits(files, { onWarning: (sentence: string) => warnings.push(sentence) })).toEqual(expected);
    expect(warnings).toEqual([]);
  });

  test.each<[string[], Record<string, string[]>, RegExp[]]>([
    [
      ["a.parquet", "b.parquet", "c.jsonl", "d.csv"],
      { train: ["a.parquet", "b.parquet"] },
      [
        /^"tiny\/rows" on http\S+: the split "train" is read from its \.parquet files, and 2 data files \(c\.jsonl, d\.csv\) of another format or with the same name are left out; give a file itself as dataset_name to read it\.$/,
      ],
    ],
    [
      ["train.json", "train.jsonl", "test.csv", "other.jsonl"],
      { train: ["train.jsonl"], test: ["test.csv"] },
      [
        /"train" is read from its \.jsonl files, and 1 data file \(train\.json\) of another format or with the same name is left out;/,
        /: 1 data file \(other\.jsonl\) names no split and is left out, since other files do;/,
      ],
    ],
  ])("what is left out is named: %j", async (files, expected, sentences) => {
    const warnings: string[] = [];
    expect(await splits(files, { onWarning: (sentence: string) => warnings.push(sentence) })).toEqual(expected);
    expect(warnings).toEqual(sentences.map((sentence) => expect.stringMatching(sentence)));
  });

  test("a subset is a folder or a beginning of names", async () => {
    const files = ["en/train.jsonl", "en/test.jsonl", "de/train.jsonl"];
    expect(await splits(files, { config: "en" })).toEqual({ train: ["en/train.jsonl"], test: ["en/test.jsonl"] });
    expect(await splits(["en-train.jsonl", "de-train.jsonl"], { config: "de" })).toEqual({ train: ["de-train.jsonl"] });
    await expect(splits(files, { config: "fr" })).rejects.toThrow(
      /^"tiny\/rows" on http\S+ has no subset "fr": neither a config, a folder nor a file begins with that name\.$/,
    );
  });

  test("the README's configs go before names", async () => {
    const files = ["x/a.jsonl", "x/b.jsonl", "y/deep/c.jsonl"];
    const readme = (isDefault: string) =>
      `---\nconfigs:\n- config_name: x\n${isDefault}  data_files:\n  - split: train\n    path: x/[a]*.jsonl\n  - split: test\n    path: [x/b.jsonl]\n- config_name: y\n  data_files: y/**/{c,d}.jsonl\n---\n# Rows`;
    expect(await splits(files, {}, readme("  default: true\n"))).toEqual({ train: ["x/a.jsonl"], test: ["x/b.jsonl"] });
    expect(await splits(files, { config: "y" }, readme(""))).toEqual({ train: ["y/deep/c.jsonl"] });
    await expect(splits(files, {}, readme(""))).rejects.toThrow(
      /has several subsets: set dataset_config to one of x, y\.$/,
    );
    expect(await splits(files, {}, "---\nconfigs:\n- config_name: y\n  data_dir: y\n---\n")).toEqual({
      train: ["y/deep/c.jsonl"],
    });
    expect(await splits(["train.jsonl"], {}, "---\n: : :\n---\n")).toEqual({ train: ["train.jsonl"] });
  });

  test("only the splits that are asked for are downloaded; one that is not there is refused", async () => {
    const files = ["train.jsonl", "test.jsonl"];
    expect(await splits(files, { splits: ["test"] })).toEqual({ test: ["test.jsonl"] });
    expect(readdirSync(join(cache, "datasets--tiny--rows", "blobs"))).toEqual([gitHash(rows("test.jsonl"))]);
    for (const none of ["dev", "constructor"]) {
      await expect(splits(files, { splits: [none] })).rejects.toThrow(`has no split "${none}"; it has test, train.`);
    }
    await expect(splits(["README.md", "a.txt"])).rejects.toThrow("holds no .parquet, .jsonl, .json or .csv file");
  });

  test("a cached copy with a part of the shards is not taken for the whole", async () => {
    const train = [0, 1].map((shard) => `data/train-0000${shard}-of-00002.jsonl`);
    await splits(train);
    expect(await splits(train, { offline: true })).toEqual({ train });
    const snapshots = join(cache, "datasets--tiny--rows", "snapshots");
    rmSync(join(snapshots, readdirSync(snapshots)[0] ?? "", train[1] ?? ""));
    await expect(splits(train, { offline: true })).rejects.toThrow(
      /has data\/train-00000-of-00002\.jsonl, but not all/,
    );
  });

  test("local files and folders", async () => {
    const local = freshPath(folder, "rows");
    mkdirSync(join(local, "data"), { recursive: true });
    writeFileSync(join(local, "data", "train.jsonl"), "");
    writeFileSync(join(local, "test.jsonl"), "");
    const train = join(local, "data", "train.jsonl");
    expect(await resolveDatasetFiles(local)).toEqual({ train: [train], test: [join(local, "test.jsonl")] });
    expect(await resolveDatasetFiles(train)).toEqual({ train: [train] });
    await expect(resolveDatasetFiles(train, { splits: ["test"] })).rejects.toThrow(
      /is one file, .* it has no split "test"/,
    );
    expect(await resolveDatasetFiles("no/such.jsonl")).toEqual({ train: ["no/such.jsonl"] });
    await expect(resolveDatasetFiles("./nowhere")).rejects.toThrow(
      new FileError(
        'Cannot read feedback from ./nowhere: it does not exist; give a local .jsonl, .json, .csv, .parquet or .db file, or an id on the Hugging Face hub ("owner/name").',
      ),
    );
  });
});
