/** Uploads of a run's results, by @huggingface/hub to a hub on this machine. Whole runs: test/cli/commands/results.test.ts. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FileError } from "../../../src/errors.ts";
import { Publishing, type PublishingOptions } from "../../../src/kto/run/publishing.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { type UploadServer, uploadServer } from "../../helpers/upload-server.ts";

const folder = temporaryFolder();
let server: UploadServer;
let output: string;
const warnings: string[] = [];

beforeEach(async () => {
  server = await uploadServer();
  warnings.length = 0;
  output = join(mkdtempSync(join(folder, "p-")), "stories-kto");
  vi.stubEnv("HF_ENDPOINT", server.endpoint);
  vi.stubEnv("HF_TOKEN", server.token);
  vi.stubEnv("HF_HUB_OFFLINE", "");
  vi.stubEnv("TRANSFORMERS_OFFLINE", "");
  writeResult(output);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.close();
});

const WEIGHTS = Buffer.alloc(10_000, 7);

function writeResult(into: string): void {
  mkdirSync(join(into, "additional_chat_templates"), { recursive: true });
  const files = {
    "config.json": "{}",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": "{}",
    "README.md": "---\n---\n",
    "trainer_state.json": "{}",
    "additional_chat_templates/tool_use.jinja": "tools",
    // What is not for others.
    "samples.jsonl": "prompts",
    "trackers.json": "{}",
    "notes.txt": "mine",
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(join(into, name), content);
}

function checkpoint(step: number): { folder: string; step: number } {
  const into = join(output, `checkpoint-${step}`);
  mkdirSync(into, { recursive: true });
  writeFileSync(join(into, "model.safetensors"), Buffer.alloc(5000, step));
  writeFileSync(join(into, "optimizer.safetensors"), Buffer.alloc(6000, step + 1));
  writeFileSync(join(into, "run_state.json"), "{}");
  return { folder: into, step };
}

const prepared = (options: Partial<PublishingOptions> = {}) =>
  Publishing.prepare({ outputFolder: output, onWarning: (one) => warnings.push(one), ...options });

describe("the result", () => {
  test("goes to a repository of its folder's name, without what is not for others", async () => {
    const publishing = await prepared();
    expect(server.calls).toEqual([]);
    expect(await publishing.end()).toBe(`${server.endpoint}/ada/stories-kto`);
    const repository = server.repositories.get("ada/stories-kto");
    expect(repository?.visibility).toBeUndefined();
    expect([...(repository?.files.keys() ?? [])].sort()).toEqual([
      "README.md",
      "additional_chat_templates/tool_use.jinja",
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "trainer_state.json",
    ]);
    expect(repository?.files.get("model.safetensors")?.equals(WEIGHTS)).toBe(true);
    expect(server.commits.map(({ title }) => title)).toEqual(["End of training"]);
    expect(server.leaked).toEqual([]);
    expect(warnings).toEqual([]);
  });

  test("goes where hub_model_id says, private if asked for, and over what is there", async () => {
    const options = { hub_model_id: "team/model", hub_private_repo: true };
    await (await prepared(options)).end();
    writeFileSync(join(output, "config.json"), '{"changed": true}');
    await (await prepared(options)).end();
    const repository = server.repositories.get("team/model");
    expect(repository?.visibility).toBe("private");
    expect(String(repository?.files.get("config.json"))).toBe('{"changed": true}');
    expect(server.calls).not.toContain("GET /api/whoami-v2");
  });
});

describe("checkpoints", () => {
  test.each<[NonNullable<PublishingOptions["hub_strategy"]>, readonly string[]]>([
    ["every_save", ["model.safetensors"]],
    [
      "checkpoint",
      [
        "model.safetensors",
        ...["model", "optimizer"].map((one) => `last-checkpoint/${one}.safetensors`),
        "last-checkpoint/run_state.json",
      ],
    ],
    [
      "all_checkpoints",
      [
        "model.safetensors",
        ...["model", "optimizer"].map((one) => `checkpoint-2/${one}.safetensors`),
        "checkpoint-2/run_state.json",
      ],
    ],
  ])("%s uploads %j", async (hub_strategy, files) => {
    const publishing = await prepared({ hub_strategy });
    publishing.checkpoint(checkpoint(2));
    await publishing.settled();
    expect(server.commits).toEqual([{ id: "ada/stories-kto", title: "Training in progress, step 2", files }]);
    // The end puts the result in the place of the checkpoint's model.
    await publishing.end();
    expect(server.repositories.get("ada/stories-kto")?.files.get("model.safetensors")?.equals(WEIGHTS)).toBe(true);
  });

  test("are left alone by the strategy end, and while another one is on its way", async () => {
    (await prepared({ hub_strategy: "end" })).checkpoint(checkpoint(1));
    const publishing = await prepared();
    for (const step of [2, 3, 4]) publishing.checkpoint(checkpoint(step));
    await publishing.settled();
    publishing.checkpoint(checkpoint(5));
    await publishing.end();
    expect(server.commits.map(({ title }) => title)).toEqual([
      "Training in progress, step 2",
      "Training in progress, step 5",
      "End of training",
    ]);
  });
});

describe("what fails", () => {
  test("is told in a sentence with the place of the result, never with the token", async () => {
    server.fault = (call) =>
      call.includes("/commit/") ? { status: 403, words: `no rights for ${server.token}` } : undefined;
    const error = await (await prepared()).end().catch((thrown: unknown) => thrown);
    expect(String(error)).toContain(
      `Cannot push to stories-kto on ${server.endpoint}: HTTP 403, no rights for (the token).`,
    );
    expect(String(error)).toContain("; the token may not write there.");
    expect(String(error)).toContain(`Nothing is lost: the result is in ${output}; upload it with "hf upload`);
    expect(String(error)).not.toContain(server.token);
  });

  test("a checkpoint that fails is a warning, and the end goes on", async () => {
    let refusals = 1;
    server.fault = (call) => (call.includes("preupload") && refusals-- > 0 ? { status: 400, words: "no" } : undefined);
    const publishing = await prepared();
    publishing.checkpoint(checkpoint(1));
    await publishing.end();
    expect(warnings).toEqual([expect.stringMatching(/HTTP 400, no.*The checkpoint of step 1 is in .*checkpoint-1\.$/)]);
    expect(server.commits.map(({ title }) => title)).toEqual(["End of training"]);
  });

  test("what may pass is tried again", async () => {
    const faults = [{ status: 503, words: "busy" }, "cut"] as const;
    let next = 0;
    server.fault = (call) => (call.includes("/commit/") ? faults[next++] : undefined);
    await (await prepared({ patience: { firstDelayMs: 1 } })).end();
    expect(server.commits).toHaveLength(1);
    expect(server.calls.filter((call) => call.includes("/commit/"))).toHaveLength(3);
  });

  test("a server that is gone is one sentence, which says where the result is", async () => {
    const publishing = await prepared({ patience: { firstDelayMs: 1 } });
    await server.close();
    publishing.checkpoint(checkpoint(1));
    const error = await publishing.end().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FileError);
    expect(warnings).toEqual([
      expect.stringMatching(
        /^Cannot push to .*refused \(\d attempts\); try again later\. The checkpoint of step 1 is in/,
      ),
    ]);
    expect(String(error)).toMatch(/Cannot push to .*refused .* try again later\. Nothing is lost: the result is in /);
  });

  test("a token that is not valid is told, also one of another form", async () => {
    const wrong = await (await prepared({ hub_token: "hf_wrong" })).end().catch((thrown: unknown) => thrown);
    expect(String(wrong)).toMatch(/HTTP 401, Invalid token.*; the token is not valid\./);
    const odd = await (await prepared({ hub_token: "odd-token" })).end().catch((thrown: unknown) => thrown);
    expect(String(odd)).toContain("Your access token must start with 'hf_'");
    expect(String(odd)).not.toContain("odd-token");
    expect(server.calls.filter((call) => !call.startsWith("GET /api/whoami"))).toEqual([]);
  });

  test.each<[string, Partial<PublishingOptions>, Record<string, string>, RegExp]>([
    [
      "without a token",
      {},
      { HF_TOKEN: "", HF_HOME: "/nowhere" },
      /^ConfigError: push_to_hub needs a token that may write/,
    ],
    ["offline", {}, { HF_HUB_OFFLINE: "1" }, /^ConfigError: push_to_hub is set, but HF_HUB_OFFLINE forbids/],
    ["with a name of dots", { hub_model_id: "../x" }, {}, /^ConfigError: hub_model_id is "\.\.\/x"; it must be/],
    ["with a name that is none", { hub_model_id: "a/b/c" }, {}, /^ConfigError: hub_model_id is "a\/b\/c"; it must be/],
  ])("%s nothing begins", async (_, options, environment, message) => {
    for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
    const error = await prepared(options).catch((thrown: unknown) => thrown);
    expect(`${(error as Error).name}: ${(error as Error).message}`).toMatch(message);
    expect(server.calls).toEqual([]);
  });
});

test("nothing that is written locally has the token", async () => {
  await (await prepared()).end();
  for (const name of ["README.md", "trainer_state.json", "config.json"]) {
    expect(readFileSync(join(output, name), "utf8")).not.toContain(server.token);
  }
});
