/** What lies beside the result of a training, and where it goes: the model card, and the repository on the hub. */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { copyOfModel, fixtures, freshPath, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";
import { type UploadServer, uploadServer } from "../../helpers/upload-server.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
let server: UploadServer;
beforeEach(async () => {
  server = await uploadServer();
  vi.stubEnv("HF_ENDPOINT", server.endpoint);
  vi.stubEnv("HF_TOKEN", "");
  vi.stubEnv("HF_HOME", freshPath(folder, "home"));
  vi.stubEnv("HF_HUB_OFFLINE", "");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.close();
});

const words = (output: string, ...more: string[]) => [
  ...["train", "--model_name_or_path", `${fixtures}/llama/policy`, "--dataset_name", `${fixtures}/llama/data.jsonl`],
  ...[
    "--output_dir",
    output,
    "--per_device_train_batch_size",
    "2",
    "--logging_steps",
    "1",
    "--max_steps",
    "2",
    ...more,
  ],
];

/** Every text that a run left behind. */
function textsIn(path: string): string {
  if (statSync(path).isDirectory())
    return readdirSync(path)
      .map((name) => textsIn(join(path, name)))
      .join("\n");
  return readFileSync(path, "latin1");
}

test("a training leaves a card, goes to the hub with its checkpoints, and never tells the token", async () => {
  const model = copyOfModel(folder, `${fixtures}/llama/policy`);
  writeFileSync(join(model, "README.md"), "---\nlicense: mit\n---\n# Base\n");
  const output = freshPath(folder, "aligned");
  const push = ["--push_to_hub", "--hub_token", server.token, "--hub_strategy", "checkpoint", "--hub_private_repo"];
  const { code, stdout, stderr } = await kto(
    ...words(output, ...push, "--report_to", "tensorboard", "--save_steps", "1", "--model_name_or_path", model),
  );
  expect(code, stderr).toBe(0);
  expect(stderr).toContain(`uploaded to ${server.endpoint}/ada/aligned\n`);
  const card = readFileSync(join(output, "README.md"), "utf8");
  expect(parse(card.split("---\n")[1] ?? "")).toMatchObject({ license: "mit", tags: ["kto", "kto-webgpu"] });
  expect(card).toContain("Data: 5 rows, 3 desirable (weight 1), 2 undesirable (weight 1).");
  expect(card).toContain("| `per_device_train_batch_size` | 2 |");
  expect(card).toMatch(/\| `rewards\/margins` \| -?[\d.]+ \|/);
  expect(readFileSync(join(output, "training.svg"), "utf8")).toContain("<svg");
  const repository = server.repositories.get("ada/aligned");
  expect(repository?.visibility).toBe("private");
  expect(repository?.files.get("model.safetensors")).toEqual(readFileSync(join(output, "model.safetensors")));
  expect(String(repository?.files.get("README.md"))).toBe(card);
  expect([...(repository?.files.keys() ?? [])]).toContain("last-checkpoint/optimizer.safetensors");
  expect(server.commits.at(-1)?.title).toBe("End of training");
  for (const text of [stdout, stderr, textsIn(output)]) expect(text).not.toContain(server.token);
});

test("what the hub refuses is told at the end, when everything is saved; a card of one's own is kept", async () => {
  server.fault = (call) => (call.includes("/repos/create") ? { status: 403, words: "read-only token" } : undefined);
  const output = freshPath(folder, "aligned");
  mkdirSync(output);
  writeFileSync(join(output, "README.md"), "# Mine\n");
  const { code, stdout, stderr } = await kto(
    ...words(output, "--push_to_hub", "--hub_token", server.token, "--hub_strategy", "end", "--overwrite_output_dir"),
  );
  expect(code).toBe(7);
  expect(stdout).toMatch(/^trained 2 updates in /);
  expect(stderr).toContain(`error: Cannot push to aligned on ${server.endpoint}: HTTP 403, read-only token`);
  expect(stderr).toContain(`Nothing is lost: the result is in ${output};`);
  expect(stderr).toContain(`${join(output, "README.md")} is not kto's, or was changed, and is kept.`);
  expect(readFileSync(join(output, "README.md"), "utf8")).toBe("# Mine\n");
  expect(statSync(join(output, "model.safetensors")).size).toBeGreaterThan(0);
});

test("what cannot be uploaded is refused before the training", async () => {
  const output = freshPath(folder, "aligned");
  const noToken = await kto(...words(output, "--push_to_hub"));
  expect([noToken.code, noToken.stderr]).toEqual([2, expect.stringContaining("push_to_hub needs a token")]);
  const judged = ["--judge_model", "m", "--judge_base_url", server.endpoint, "--judge_request", '{"key": "secret"}'];
  const asked = [
    "--eval_dataset_name",
    `${fixtures}/llama/data.jsonl`,
    "--eval_samples",
    "1",
    "--hub_strategy",
    "checkpoint",
  ];
  const secret = await kto(...words(output, "--push_to_hub", "--hub_token", server.token, ...judged, ...asked));
  expect(secret.stderr).toContain(
    'hub_strategy "checkpoint" would upload the settings of the run, and with them judge',
  );
  expect(server.calls).toEqual([]);
});
