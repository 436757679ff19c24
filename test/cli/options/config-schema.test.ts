/** The schema of configuration files, as an editor uses it: what it takes is what a run takes. */
import { Ajv } from "ajv";
import { expect, test } from "vitest";
import { configSchemaOf, descriptions } from "../../../src/cli/descriptions/all.ts";
import { optionInfos } from "../../../src/kto/options/option.ts";

const ajv = new Ajv({ strict: true, strictTypes: false });
const validate = ajv.compile(configSchemaOf("train"));

const files = { model_name_or_path: "./model", dataset_name: "feedback.jsonl", output_dir: "./aligned" };

test.each([
  files,
  { ...files, model: "other", learning_rate: 5e-6, desirable_weight: "auto", loss_type: "kto_zero", seed: 0 },
  { ...files, lora_target_modules: ["q_proj"], report_to: "tensorboard", resume_from_checkpoint: "out/checkpoint-5" },
  { ...files, column_mapping: { prompt: "question" }, adapter: null, max_length: null, fp16: true },
  { ...files, tf32: true },
])("%j is right", (config) => {
  expect(validate(config), ajv.errorsText(validate.errors)).toBe(true);
});

test.each([
  [{ bata: 0.1 }, "additional properties"],
  [{ beta: -1 }, "must be > 0"],
  [{ beta: null }, "must be number"],
  [{ loss_type: "dpo" }, "allowed values"],
  [{ per_device_train_batch_size: 2.5 }, "must be integer"],
  [{ fp16: "maybe" }, "must be boolean"],
  [{ loss_type: 3 }, "allowed values"],
])("%j is marked", (config, told) => {
  expect(validate(config)).toBe(false);
  expect(ajv.errorsText(validate.errors)).toContain(told);
});

test("every option is there under each of its names, with its line of the help text and its default", () => {
  for (const name of ["train", "sft"] as const) {
    const { properties } = configSchemaOf(name) as { properties: Record<string, Record<string, unknown>> };
    for (const { name: option, about, defaultValue, required } of optionInfos(descriptions[name].schema)) {
      expect(properties[option]).toMatchObject({
        description: `${about.description}${required ? " (required)" : ""}`,
        ...(defaultValue === undefined ? {} : { default: defaultValue }),
      });
      for (const alias of about.aliases ?? []) expect(properties).toHaveProperty(alias);
    }
  }
});
