/**
 * What people bring from other trainers runs to the end: TRL's own example commands, LLaMA-Factory's example of KTO and
 * axolotl's, with other names of model, data and output and nothing else changed, on a tiny model.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { copyOfModel, fileIn, freshPath, jsonl, stories, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();

const names = ["Tim", "Lily", "Sam", "Mia", "Ben", "Sue", "Max", "Amy"];
const turns = names.map((name, i) => ({
  question: `Once upon a time, ${name} met a ${["cat", "dog"][i % 2]}.`,
  answer: i % 3 === 0 ? " It was sad." : " They were happy.",
  label: i % 3 !== 0,
}));
const texts = fileIn(
  folder,
  "rows.jsonl",
  jsonl(turns.map(({ question, answer, label }) => ({ prompt: question, completion: answer, label }))),
);

async function metricsOf(output: string): Promise<Record<string, number>[]> {
  const text = readFileSync(join(output, "metrics.jsonl"), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number>);
}

describe("TRL's example commands of scripts/kto.py", () => {
  const common = (output: string, rows: number) => [
    ...["train", "--dataset_name", texts, `--model_name_or_path=${stories}`],
    ...["--per_device_train_batch_size", String(rows), "--num_train_epochs", "1", "--learning_rate", "5e-7"],
    ...["--lr_scheduler_type=cosine", "--gradient_accumulation_steps", "1", "--eval_steps", "500"],
    ...[`--output_dir=${output}`, "--warmup_steps", "0.1", "--logging_first_step"],
  ];

  test("full training", async () => {
    const output = freshPath(folder, "kto-aligned-model");
    const { code, stderr } = await kto(...common(output, 16));
    expect(code, stderr).toBe(0);
    expect(existsSync(join(output, "model.safetensors"))).toBe(true);
    // One update, whose warm-up of a tenth is rounded up to it.
    expect(await metricsOf(output)).toMatchObject([{ step: 1, learning_rate: 0 }]);
  });

  test("QLoRA", async () => {
    const output = freshPath(folder, "kto-aligned-model-lora");
    const words = [
      ...[...common(output, 8), "--use_peft", "--load_in_4bit", "--lora_target_modules=all-linear"],
      ...["--lora_r=16", "--lora_alpha=16"],
    ];
    const { code, stderr } = await kto(...words);
    expect(code, stderr).toBe(0);
    const config = JSON.parse(readFileSync(join(output, "adapter_config.json"), "utf8"));
    expect(config).toMatchObject({ r: 16, lora_alpha: 16 });
    expect(config.target_modules).toHaveLength(7);
  });
});

/** LLaMA-Factory's examples/train_lora/qwen3_lora_kto.yaml; dataset_dir is where its data sets are described. */
const llamaFactory = (model: string, output: string, data: string) => `### model
model_name_or_path: ${model}
trust_remote_code: true

### method
stage: kto
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
pref_beta: 0.1

### dataset
dataset: kto_en_demo
dataset_dir: ${data}
template: qwen3_nothink
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
dataloader_num_workers: 4

### output
output_dir: ${output}
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
report_to: none  # choices: [none, wandb, tensorboard, swanlab, mlflow]

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000

### eval
# val_size: 0.1
# per_device_eval_batch_size: 1
# eval_strategy: steps
# eval_steps: 500
`;

/** The model with the chat template that qwen3_nothink means. */
function chatModel(): string {
  const model = copyOfModel(folder, stories);
  const turn = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}";
  const ending = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
  writeFileSync(join(model, "chat_template.jinja"), `{% for m in messages %}${turn}{% endfor %}${ending}`);
  return model;
}

/** LLaMA-Factory's folder of data, with its kto_en_demo in few words. */
function chatData(): string {
  const data = freshPath(folder, "data");
  mkdirSync(data);
  const rows = turns.map(({ question, answer, label }) => ({
    messages: [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ],
    label,
  }));
  writeFileSync(join(data, "kto_en_demo.json"), JSON.stringify(rows));
  const columns = { messages: "messages", kto_tag: "label" };
  const tags = { role_tag: "role", content_tag: "content", user_tag: "user", assistant_tag: "assistant" };
  const info = { kto_en_demo: { file_name: "kto_en_demo.json", formatting: "sharegpt", columns, tags } };
  writeFileSync(join(data, "dataset_info.json"), JSON.stringify(info));
  return data;
}

describe("LLaMA-Factory's example of KTO", () => {
  test("runs unchanged, tells what it is read as, and takes its own names on the command line", async () => {
    const output = freshPath(folder, "saves");
    const config = fileIn(folder, "qwen3_lora_kto.yaml", llamaFactory(chatModel(), output, chatData()));
    const { code, stderr } = await kto("train", config);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`config: ${config} was written for LLaMA-Factory; --dry_run shows what it is read as`);
    expect(stderr).toContain("without effect here (speed, memory and reporting elsewhere): trust_remote_code,");
    expect((await metricsOf(output)).at(-1)).toMatchObject({ step: 3, epoch: 3 });
    const adapter = JSON.parse(readFileSync(join(output, "adapter_config.json"), "utf8"));
    expect(adapter).toMatchObject({ r: 8, lora_alpha: 16, lora_dropout: 0 });

    const plan = await kto("train", config, "--dry_run", "pref_beta=0.3", "learning_rate=1e-5");
    expect(plan.code, plan.stderr).toBe(0);
    expect(plan.stdout).toContain(`# ${config}, written for LLaMA-Factory, is read as:`);
    for (const line of [
      "beta: 0.3  # pref_beta",
      'lora_target_modules: ["all-linear"]  # lora_target',
      "lora_alpha: 16  # LLaMA-Factory's default",
      "truncation_mode: proportional  # cutoff_len",
      "dataset_num_proc: 16  # preprocessing_num_workers",
      "# without effect here: plot_loss",
    ]) {
      expect(plan.stdout).toContain(`${line}\n`);
    }
  });

  test("a template that is not the model's own is refused with both texts", async () => {
    const text = llamaFactory(chatModel(), freshPath(folder, "saves"), chatData());
    const config = fileIn(folder, "other.yaml", text.replace("qwen3_nothink", "llama3"));
    const { code, stderr } = await kto("train", config);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /the chat template "llama3" writes "<\|start_header_id\|>.*but the model's own .* writes "<\|im_start/,
    );
  });

  test("all that cannot be done is told at once, each with its place", async () => {
    const text = llamaFactory(stories, freshPath(folder, "saves"), chatData());
    const wrong = text.replace("pref_beta: 0.1", "pref_beta: -1\nuse_galore: true\npref_ftx: 0.5\noptim: sgd");
    const config = fileIn(folder, "wrong.yaml", wrong);
    const { code, stderr } = await kto("train", config);
    expect(code).toBe(2);
    expect(stderr).toContain("error: 4 things must be changed:\n  option ");
    for (const part of [
      `option "use_galore" in ${config} is true, which has no counterpart here: leave it out.`,
      `option "pref_ftx" in ${config} is 0.5, which adds the loss of supervised fine-tuning`,
      `option "optim" in ${config} is "sgd"; it must be "adamw`,
      `option "beta" (pref_beta in ${config}) is -1; it must be a number above 0.`,
    ]) {
      expect(stderr).toContain(part);
    }
  });
});

/** axolotl's examples/llama-3/qlora-1b-kto.yaml. */
const axolotl = (output: string) => `base_model: ${stories}
load_in_8bit: false
load_in_4bit: true

rl: kto
rl_beta: 0.5
kto_desirable_weight: 0.2

datasets:
  - path: ${texts}
    type: llama3.ultra
    split: train
dataset_prepared_path: last_run_prepared
val_set_size: 0.0
output_dir: ${output}

remove_unused_columns: false

adapter: qlora
lora_model_dir:

sequence_len: 2048
sample_packing: false  # not supported with kto
eval_sample_packing: false
pad_to_sequence_len: false

lora_r: 32
lora_alpha: 64
lora_dropout: 0.05
lora_target_linear: true

wandb_project:
wandb_entity:
wandb_watch:
wandb_name:
wandb_log_model:

gradient_accumulation_steps: 1
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_8bit
lr_scheduler: cosine
learning_rate: 0.0002

bf16: auto
tf32: true

gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
resume_from_checkpoint:
logging_steps: 1
attn_implementation: flash_attention_2

warmup_ratio: 0.1
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
special_tokens:
  pad_token: "<|end_of_text|>"
`;

describe("axolotl's example of KTO", () => {
  test("runs unchanged, and says what is computed more exactly than it asks", async () => {
    const output = freshPath(folder, "qlora-out");
    const config = fileIn(folder, "qlora-1b-kto.yaml", axolotl(output));
    const { code, stderr } = await kto("train", config);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("tf32, attn_implementation: what is computed is exact attention, in the precision");
    const metrics = await metricsOf(output);
    expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
    const adapter = JSON.parse(readFileSync(join(output, "adapter_config.json"), "utf8"));
    expect(adapter).toMatchObject({ r: 32, lora_alpha: 64 });
    expect(existsSync(join(output, "checkpoint-4"))).toBe(true);
  });
});
