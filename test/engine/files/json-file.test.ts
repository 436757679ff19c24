/** Text files of a model folder: a byte-order mark is read over, a Git LFS pointer is named as what it is. */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readModelConfig } from "../../../src/engine/model/config/folder.ts";
import { readGenerationDefaults } from "../../../src/engine/model/config/generation-config.ts";
import { readAdapterConfig } from "../../../src/engine/model/peft-config.ts";
import { openWeights } from "../../../src/engine/model/weights/weight-files.ts";
import { loadChatTemplate } from "../../../src/engine/text/chat-template.ts";
import { loadTokenizer } from "../../../src/engine/text/tokenizer.ts";
import { DatasetError, ModelFormatError } from "../../../src/errors.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";
import { tokenizerFolders } from "../../helpers/tokenizers.ts";

const root = temporaryFolder();

const pointer = `version https://git-lfs.github.com/spec/v1
oid sha256:${"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"}
size 1234567
`;

const readWeights = async (folder: string) => await (await openWeights(folder)).close();

const openShards = async (folder: string) => {
  rmSync(join(folder, "model.safetensors"), { force: true });
  await openWeights(folder);
};

/** A model folder with every file that is read. */
function modelFolder(): string {
  const folder = freshPath(root, "model");
  cpSync(llama, folder, { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    cpSync(join(tokenizerFolders.llama2, name), join(folder, name));
  const write = (name: string, json: object) => writeFileSync(join(folder, name), JSON.stringify(json));
  write("generation_config.json", { eos_token_id: 2 });
  write("special_tokens_map.json", { bos_token: "<s>" });
  write("adapter_config.json", { peft_type: "LORA", r: 2, lora_alpha: 4, target_modules: ["q_proj"] });
  const shard = "model-00001-of-00001.safetensors";
  cpSync(join(folder, "model.safetensors"), join(folder, shard));
  const header = readFileSync(join(folder, shard));
  const tensors = JSON.parse(header.toString("utf8", 8, 8 + Number(header.readBigUInt64LE(0)))) as object;
  const names = Object.keys(tensors).filter((name) => name !== "__metadata__");
  write("model.safetensors.index.json", { weight_map: Object.fromEntries(names.map((name) => [name, shard])) });
  return folder;
}

const json: [file: string, read: (folder: string) => Promise<unknown>][] = [
  ["config.json", readModelConfig],
  ["generation_config.json", readGenerationDefaults],
  ["generation_config.json", readModelConfig],
  ["tokenizer.json", loadTokenizer],
  ["tokenizer_config.json", loadTokenizer],
  ["tokenizer_config.json", loadChatTemplate],
  ["special_tokens_map.json", loadTokenizer],
  ["adapter_config.json", readAdapterConfig],
  ["model.safetensors.index.json", openShards],
];

describe("a byte-order mark", () => {
  test.each(json)("before %s changes nothing, %#", async (name, read) => {
    const folder = modelFolder();
    const path = join(folder, name);
    const before = JSON.stringify(await read(folder));
    writeFileSync(path, `\uFEFF${readFileSync(path, "utf8")}`);
    expect(JSON.stringify(await read(folder))).toBe(before);
  });

  test("of UTF-16 is told", async () => {
    const folder = modelFolder();
    const path = join(folder, "config.json");
    writeFileSync(path, Buffer.from(`\uFEFF${readFileSync(path, "utf8")}`, "utf16le"));
    await expect(readModelConfig(folder)).rejects.toThrow(
      new ModelFormatError(`${path} is not UTF-8 text; save it as UTF-8.`),
    );
  });
});

describe("a Git LFS pointer", () => {
  test.each([...json, ["model.safetensors", readWeights] as const])(
    "in place of %s is told, %#",
    async (name, read) => {
      const folder = modelFolder();
      const path = join(folder, name);
      writeFileSync(path, pointer);
      await expect(read(folder)).rejects.toThrow(
        new ModelFormatError(
          `${path} is a Git LFS pointer and not the file itself, which has 1234567 bytes: fetch the file with "git lfs pull" in that folder, or download it from the hub.`,
        ),
      );
    },
  );

  test.each([
    ["chat_template.jinja", "chat_template.jinja", undefined],
    ["additional_chat_templates/tool_use.jinja", "additional_chat_templates/tool_use.jinja", undefined],
    ["the file of chat_template_path", "other.jinja", "other.jinja"],
  ])("in place of the template %s is told", async (_, name, given) => {
    const folder = modelFolder();
    mkdirSync(join(folder, "additional_chat_templates"));
    writeFileSync(join(folder, "chat_template.jinja"), "{{ messages }}");
    writeFileSync(join(folder, name), pointer);
    const options = given === undefined ? {} : { templatePath: join(folder, given) };
    await expect(loadChatTemplate(folder, options)).rejects.toThrow(
      `${join(folder, name)} is a Git LFS pointer and not the file itself, which has 1234567 bytes: fetch the file`,
    );
  });

  test.each(["jsonl", "json", "csv", "parquet"])("in place of feedback named .%s is told", async (ending) => {
    const path = join(modelFolder(), `feedback.${ending}`);
    writeFileSync(path, pointer);
    await expect(readFeedback(path)).rejects.toThrow(
      new DatasetError(
        `${path} is a Git LFS pointer and not the file itself, which has 1234567 bytes: fetch the file with "git lfs pull" in that folder, or download it from the hub.`,
      ),
    );
  });
});
