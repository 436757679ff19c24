/** What configurations of LLaMA-Factory, axolotl and TRL's mixtures become, option by option. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { dialects } from "../../../src/kto/options/dialects/all.ts";
import type { OptionsInFile } from "../../../src/kto/options/dialects/dialect.ts";
import { ktoOptions, ktoParseContext } from "../../../src/kto/options/kto.ts";
import { optionInfos } from "../../../src/kto/options/option.ts";
import { ourName, parseOptions } from "../../../src/kto/options/parse.ts";

let data = "";
beforeAll(async () => {
  data = await mkdtemp(join(tmpdir(), "kto-dialects-"));
  const tags = { role_tag: "role", content_tag: "content", user_tag: "user", assistant_tag: "assistant" };
  const columns = { messages: "messages", kto_tag: "label" };
  const info = {
    kto_en_demo: { file_name: "kto_en_demo.json", formatting: "sharegpt", columns, tags },
    hub: { hf_hub_url: "someone/rows", columns: { prompt: "prompt", response: "completion", kto_tag: "label" } },
    more: { file_name: "more.jsonl", subset: "small", split: "test", num_samples: 9, columns: { kto_tag: "tag" } },
    strange: { file_name: "s.json", formatting: "sharegpt", columns, tags: { user_tag: "me" } },
    untagged: { file_name: "u.json", columns: { prompt: "p" } },
  };
  await writeFile(join(data, "dataset_info.json"), JSON.stringify(info));
  await mkdir(join(data, "empty"));
});
afterAll(async () => {
  await rm(data, { recursive: true });
});

const infos = optionInfos(ktoOptions);
const ourOption = (written: string) => ourName(written, infos, ktoParseContext);

async function read(text: string) {
  const values = parse(text) as OptionsInFile;
  const dialect = dialects.find(({ recognises }) => recognises(values));
  const { entries = [], ...rest } = (await dialect?.translate(values, ourOption)) ?? {};
  return {
    product: dialect?.product,
    options: Object.fromEntries(entries.map(({ name, value }) => [name, value])),
    ...rest,
  };
}

describe("LLaMA-Factory", () => {
  test("its defaults where ours are others, its names, its data set", async () => {
    const { product, options, withoutEffect, problems } = await read(`
      stage: kto
      dataset: kto_en_demo
      dataset_dir: ${data}
      pref_beta: 0.2
      kto_chosen_weight: 1.5
      template: qwen3_nothink
      plot_loss: true
      use_galore: false
      quantization_bit: 4
      val_size: 0.1`);
    expect([product, problems, withoutEffect]).toEqual(["LLaMA-Factory", [], ["plot_loss"]]);
    expect(options).toEqual({
      ...{ beta: 0.2, desirable_weight: 1.5, chat_template_name: "qwen3_nothink", validation_split: 0.1 },
      ...{ dataset_name: join(data, "kto_en_demo.json"), text_as_chat: true },
      column_mapping: { conversations: "messages", label: "label" },
      ...{ load_in_4bit: true, bnb_4bit_quant_type: "nf4", use_bnb_nested_quant: true },
      ...{ use_peft: true, lora_r: 8, lora_alpha: 16, lora_dropout: 0, lora_target_modules: ["all-linear"] },
      ...{ max_length: 2048, truncation_mode: "proportional", learning_rate: 5e-5 },
    });
  });

  test("a trained adapter is compared with the model without any, and a full training has none", async () => {
    const continued = await read("{stage: kto, adapter_name_or_path: a, lora_rank: 4}");
    expect(continued.options).toMatchObject({ adapter_name_or_path: "a", reference: "base", lora_r: 4, lora_alpha: 8 });
    const full = await read("{stage: kto, finetuning_type: full}");
    expect(full.options).toMatchObject({ use_peft: false });
    expect(full.options).not.toHaveProperty("lora_r");
  });

  test("rows of text by their columns, on the hub and in files", async () => {
    const hub = await read(`{stage: kto, dataset_dir: ${data}, dataset: hub, eval_dataset: hub}`);
    expect(hub.options).toMatchObject({
      ...{ dataset_name: "someone/rows", eval_dataset_name: "someone/rows", text_as_chat: true },
      column_mapping: { prompt: "prompt", completion: "completion", label: "label" },
    });
    const more = await read(`{stage: kto, dataset_dir: ${data}, dataset: more}`);
    expect(more.options).toMatchObject({ dataset_config: "small", dataset_train_split: "test", max_samples: 9 });
  });

  test("what cannot be done is named, all of it", async () => {
    const { problems } = await read(`
      stage: kto
      finetuning_type: freeze
      pref_ftx: 0.1
      use_galore: true
      quantization_bit: 2
      mix_strategy: interleave_under
      dataset_dir: ${data}
      dataset: kto_en_demo,strange`);
    expect(problems).toEqual([
      'option "finetuning_type" is "freeze", which is another kind of training: use "lora" or "full"; freeze_parameters keeps parameters as they are.',
      'option "pref_ftx" is 0.1, which adds the loss of supervised fine-tuning: leave it out, or run kto sft before.',
      'option "use_galore" is true, which has no counterpart here: leave it out.',
      'option "quantization_bit" is 2, which is no size of quantised weights here: use 4 or 8.',
      'option "mix_strategy" is "interleave_under", which mixes data sets: use concat.',
      'option "dataset" is "kto_en_demo,strange", which names "strange" with the tag user_tag "me": give messages with role and content, or from and value.',
    ]);
  });

  test.each([
    ["untagged", 'names "untagged", which has no kto_tag'],
    ["nobody", 'names "nobody", which dataset_info.json does not describe'],
    ["kto_en_demo,hub", "are data sets with different columns"],
  ])("dataset %s is refused", async (name, reason) => {
    const { problems } = await read(`{stage: kto, dataset_dir: ${data}, dataset: "${name}"}`);
    expect(problems?.[0]).toContain(reason);
  });

  test("a folder without dataset_info.json is named", async () => {
    const { problems } = await read(`{stage: kto, dataset_dir: ${join(data, "empty")}, dataset: kto_en_demo}`);
    expect(problems?.[0]).toMatch(/dataset_info\.json cannot be read \(.*\): give its folder as dataset_dir/);
  });

  test.each([
    ["of a data set that is not described", () => `{stage: kto, dataset_dir: ${data}, dataset: nobody}`],
    ["without the description", () => `{stage: kto, dataset_dir: ${join(data, "empty")}, dataset: kto_en_demo}`],
    ["of axolotl", () => "{base_model: m, rl: kto, datasets: [{ds_type: json}]}"],
    ["of TRL's mixtures", () => "{model_name_or_path: m, datasets: [{path: rows, fraction: 0.5}]}"],
  ])("rows that are refused are not told to be missing too: a file %s", async (_, text) => {
    const { options, problems = [] } = await read(text());
    expect(problems).toHaveLength(1);
    const given = { model_name_or_path: "m", output_dir: "o", ...options };
    expect(() => parseOptions(ktoOptions, given, { ...ktoParseContext, problems })).toThrow(
      expect.objectContaining({ message: problems[0] }),
    );
  });
});

describe("axolotl", () => {
  const base = "base_model: m\nrl: kto\n";

  test("its defaults, its names, its rows", async () => {
    const { product, options, withoutEffect, problems } = await read(`${base}
rl_beta: 0.5
kto_desirable_weight: 0.2
kto_undesirable_weight:
adapter: qlora
load_in_4bit: true
lora_r: 32
lora_alpha: 64
lora_target_linear: true
datasets:
  - path: rows.jsonl
    type: llama3.argilla
    split: train
val_set_size: 0.05
evals_per_epoch: 4
saves_per_epoch: 2
optimizer: adamw_8bit
bf16: auto
flash_attention: true
wandb_project:
special_tokens:
  pad_token: "<|end_of_text|>"`);
    expect([product, problems, withoutEffect]).toEqual(["axolotl", [], ["flash_attention"]]);
    expect(options).toEqual({
      ...{ model_name_or_path: "m", beta: 0.5, desirable_weight: 0.2, use_peft: true, load_in_4bit: true },
      ...{ lora_r: 32, lora_alpha: 64, lora_dropout: 0, lora_target_modules: ["all-linear"] },
      ...{ dataset_name: "rows.jsonl", dataset_train_split: "train", column_mapping: { prompt: "instruction" } },
      system_format: "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
      prompt_format:
        "{system}<|start_header_id|>user<|end_header_id|>\n\n{prompt}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
      completion_format: "{completion}<|eot_id|>",
      ...{ validation_split: 0.05, eval_strategy: "steps", eval_steps: 0.25, eval_on_start: true },
      ...{ save_strategy: "steps", save_steps: 0.5, save_total_limit: 4, optim: "adamw_8bit", bf16: true },
      ...{ max_length: 512, excess_length_strategy: "drop", per_device_train_batch_size: 1, num_train_epochs: 1 },
      ...{ lr_scheduler_type: "cosine", warmup_ratio: 0.03, output_dir: "./model-out" },
    });
  });

  test("rows of the user's own kind, several files, an evaluation of its own", async () => {
    const { options, problems } = await read(`${base}
datasets:
  - path: json
    data_files: [a.jsonl, b.jsonl]
    type: {field_prompt: q, field_label: good, prompt_format: "Q {prompt}"}
test_datasets:
  - path: c.jsonl
    type: {field_prompt: q, field_label: good, prompt_format: "Q {prompt}"}
use_tensorboard: true
wandb_project: mine`);
    expect(problems).toEqual([]);
    expect(options).toMatchObject({
      ...{
        dataset_name: "a.jsonl,b.jsonl",
        column_mapping: { prompt: "q", label: "good" },
        prompt_format: "Q {prompt}",
      },
      ...{ eval_dataset_name: "c.jsonl", dataset_test_split: "train", report_to: ["wandb", "tensorboard"] },
    });
  });

  test("what cannot be done is named, all of it", async () => {
    const { problems } = await read(`
base_model: m
tokenizer_config: other
rl: dpo
sample_packing: true
datasets: [{path: d, type: chatml.argilla_chat}]
special_tokens: {eos_token: x}
lr_groups: [a]
plugins: [axolotl.integrations.liger.LigerPlugin, mine.Plugin]`);
    expect(problems).toEqual([
      'option "tokenizer_config" is "other", which is not base_model: put its files into the model\'s folder.',
      'option "rl" is "dpo", which is another kind of training: only "kto" is trained.',
      'option "sample_packing" is true, which axolotl refuses for KTO as well: leave it out.',
      expect.stringContaining("of which axolotl reads the first question and answer alone: leave out type"),
      expect.stringContaining("which changes eos_token: put it into the model folder's tokenizer_config.json."),
      'option "lr_groups" is ["a"], which has no counterpart here: leave it out.',
      expect.stringContaining('which has "mine.Plugin", which is not known here: leave it out.'),
    ]);
  });
});

describe("values that are no values of their option", () => {
  const base = "base_model: m\nrl: kto\nmicro_batch_size: 2\n";
  const [unclear, noMapping] = ["which is neither true nor false: use one of them.", "which is no mapping of names"];
  test("axolotl's file without rl asks for something else than KTO", async () => {
    for (const rl of ["", "rl:\n"]) {
      const { product, problems } = await read(`base_model: m\n${rl}micro_batch_size: 2\ndatasets: [{path: d}]`);
      expect([product, problems?.[0]]).toEqual([
        "axolotl",
        expect.stringContaining('set rl to "kto", or use kto sft.'),
      ]);
    }
  });

  test.each([
    ["load_in_4bit: 4", unclear],
    ["load_in_8bit: maybe", unclear],
    ["bf16: [1]", unclear],
    ["fp16: half", unclear],
    ["peft_use_rslora: perhaps", unclear],
    ["gradient_checkpointing: 3", unclear],
    ["lora_target_linear: {a: 1}", unclear],
    ["shuffle_merged_datasets: 2", unclear],
    ["use_mlflow: mine", unclear],
    ["evals_per_epoch: often\nval_set_size: 0.1", "which is no number above 0: give how often in an epoch."],
    ["eval_steps: 9\nevals_per_epoch: 2", "which stands beside evals_per_epoch, and both say when: keep one of them."],
    ["save_steps: 9\nsaves_per_epoch: 2", "which stands beside saves_per_epoch"],
    ["saves_per_epoch: [4]", "which is no number above 0"],
    ["saves_per_epoch: -1", "which is no number above 0"],
    ["trl: 0.1", noMapping],
    ["trl: [beta]", noMapping],
    ["special_tokens: pad", noMapping],
    ["datasets: [{path: d, type: {field_prompt: 5}}]", "which has a type whose field_prompt is 5: give text."],
    ["datasets: [{path: d, type: {prompt_format: [x]}}]", 'which has a type whose prompt_format is ["x"]: give text.'],
  ])("axolotl's %j is refused", async (text, reason) => {
    const { product, problems } = await read(`${base}${text}`);
    expect(product).toBe("axolotl");
    expect(problems).toEqual([expect.stringContaining(reason)]);
  });

  test("flags may be words and 0 or 1", async () => {
    const { options, problems } = await read(
      `${base}load_in_4bit: 1\nbf16: auto\npeft_use_rslora: "Yes"\ngradient_checkpointing: offload\nuse_wandb: 0`,
    );
    expect(problems).toEqual([]);
    expect(options).toMatchObject({ load_in_4bit: true, bf16: true, use_rslora: true, gradient_checkpointing: true });
  });

  test("LLaMA-Factory's flags, a rank and an evaluation without rows to train on", async () => {
    const { options, problems } = await read(
      `stage: kto\npure_bf16: maybe\ndisable_shuffling: 7\nlora_rank: x\ndataset_dir: ${data}\neval_dataset: hub`,
    );
    expect(problems).toEqual([
      expect.stringMatching(/^option "pure_bf16" is "maybe", which is neither/),
      expect.stringMatching(/^option "disable_shuffling" is 7, which is neither/),
      'option "eval_dataset" is "hub", which stands without dataset: name its file as eval_dataset_name.',
    ]);
    expect(options.lora_alpha).toBeUndefined();
  });
});

test("options of ours in a product's file have any spelling, and win over the product's defaults", async () => {
  const kebab = await read("stage: kto\nlearning-rate: 0.1\nmax-length: 9");
  expect(kebab.options).toMatchObject({ learning_rate: 0.1 });
  const axolotl = await read("base_model: m\nrl: kto\nmax-length: 9\nmodel: m");
  expect(axolotl.problems).toEqual([]);
  expect(axolotl.options).toMatchObject({ max_length: 9, model_name_or_path: "m" });
  expect((await read("base_model: m\nrl: kto\nmax_length: 9\nmax-length: 8")).problems).toEqual([
    'options "max_length" and "max-length" both set max_length, to 9 and 8: keep one.',
  ]);
});

describe("recognition", () => {
  test("TRL's mixture of data sets", async () => {
    const { product, options } = await read(`
model_name_or_path: m
max_length: null
datasets: [{path: someone/rows, name: small, split: train}]
test_split_size: 0.1`);
    expect(product).toBe("TRL");
    expect(options).toEqual({
      ...{ model_name_or_path: "m", max_length: null, dataset_name: "someone/rows", dataset_config: "small" },
      ...{ dataset_train_split: "train", validation_split: 0.1 },
    });
  });

  test.each([
    ["{model: m, dataset: d, output_dir: o, beta: 0.2}"],
    ["{base_model: m, dataset: d, val_set_size: 0.1}"],
    ["{model_name_or_path: m, dataset_name: d, cutoff_len: 5}"],
  ])("%s is nobody else's", async (text) => {
    expect((await read(text)).product).toBeUndefined();
  });
});

test("what an adapter trains beside A and B, and NEFTune, run under each product's names", async () => {
  const wanted = { use_dora: true, lora_modules_to_save: ["embed_tokens", "lm_head"], neftune_noise_alpha: 5 };
  const factory = await read(`
    stage: kto
    dataset: kto_en_demo
    dataset_dir: ${data}
    use_dora: true
    additional_target: embed_tokens,lm_head
    neftune_noise_alpha: 5`);
  expect(factory).toMatchObject({ product: "LLaMA-Factory", problems: [], options: wanted });
  for (const name of ["neftune_noise_alpha", "noisy_embedding_alpha"]) {
    const axolotl = await read(`
      rl: kto
      adapter: lora
      peft_use_dora: true
      lora_modules_to_save: [embed_tokens, lm_head]
      ${name}: 5`);
    expect(axolotl).toMatchObject({ product: "axolotl", problems: [], options: wanted });
  }
});

test("axolotl's ranks, alphas and layers by pattern and number", async () => {
  const axolotl = await read(`
    rl: kto
    adapter: lora
    lora_target_modules: [q_proj, v_proj]
    lora_exclude_modules: [layers.0.self_attn.v_proj]
    lora_rank_pattern: {"layers.1.self_attn.q_proj": 4}
    lora_alpha_pattern: {".*v_proj": 32}
    peft_layers_to_transform: [0, 1]
    peft_layers_pattern: layers`);
  expect(axolotl).toMatchObject({
    ...{ product: "axolotl", problems: [] },
    options: {
      ...{ lora_exclude_modules: ["layers.0.self_attn.v_proj"], lora_layers_to_transform: [0, 1] },
      ...{ lora_rank_pattern: { "layers.1.self_attn.q_proj": 4 }, lora_alpha_pattern: { ".*v_proj": 32 } },
      lora_layers_pattern: "layers",
    },
  });
});

test.each<[what: string, info: string, sentence: RegExp]>([
  ["is no JSON", "{rows: ", /dataset_info\.json cannot be read \(/],
  ["is a list", "[1, 2]", /dataset_info\.json cannot be read \(it is no object of data sets\)/],
  ["is a number", "7", /it is no object of data sets/],
  ["describes others", '{"other": {}}', /names "rows", which dataset_info\.json does not describe/],
  ["describes it as a text", '{"rows": "rows.json"}', /names "rows", which dataset_info\.json does not describe/],
  ["has no place", '{"rows": {"columns": {"kto_tag": "label"}}}', /names rows by nothing that is known/],
  ["has columns that are none", '{"rows": {"file_name": "r.json", "columns": "label"}}', /has no kto_tag/],
  ["has null for columns", '{"rows": {"file_name": "r.json", "columns": null}}', /has no kto_tag/],
  [
    "has a form of its own",
    '{"rows": {"file_name": "r.json", "columns": {"kto_tag": "label"}, "formatting": null}}',
    /in the form null/,
  ],
  [
    "has a tag of its own",
    '{"rows": {"file_name": "r.json", "formatting": "sharegpt", "columns": {"kto_tag": "l"}, "tags": {"user_tag": 1}}}',
    /with the tag user_tag 1/,
  ],
])("a dataset_info.json that %s is told in one sentence", async (_, info, sentence) => {
  const own = await mkdtemp(join(data, "info-"));
  await writeFile(join(own, "dataset_info.json"), info);
  const { problems } = await read(`{stage: kto, dataset: rows, dataset_dir: "${own}"}`);
  expect(problems).toEqual([expect.stringMatching(sentence)]);
});
