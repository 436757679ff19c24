/**
 * Every option of TRL, transformers, LLaMA-Factory and axolotl, by the lists of their own sources
 * (scripts/option-lists.py wrote the fixture): known, and accepted where it asks for nothing.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { axolotl } from "../../../src/kto/options/dialects/axolotl.ts";
import type { Dialect } from "../../../src/kto/options/dialects/dialect.ts";
import { llamaFactory } from "../../../src/kto/options/dialects/llamafactory.ts";
import { ktoOptions, ktoParseContext, parseKtoConfig } from "../../../src/kto/options/kto.ts";
import { optionInfos } from "../../../src/kto/options/option.ts";
import { ourName } from "../../../src/kto/options/parse.ts";

const lists: Readonly<Record<string, Readonly<Record<string, unknown>>>> = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../fixtures/option-lists.json"), "utf8"),
);
const required = { model_name_or_path: "m", dataset_name: "d", output_dir: "o" };
const infos = optionInfos(ktoOptions);
const ourOption = (written: string) => ourName(written, infos, ktoParseContext);
const trl = Object.keys(lists).filter((name) => /^(trl|transformers) /.test(name));

describe("TRL and transformers", () => {
  test.each(trl)("%s: every option is known, and its default accepted", (name) => {
    const list = Object.entries(lists[name] ?? {});
    expect(list.length).toBeGreaterThan(40);
    expect(list.map(([option]) => option).filter((option) => ourOption(option) === undefined)).toEqual([]);
    for (const [option, value] of list) {
      if (!(option in required)) expect(() => parseKtoConfig({ ...required, [option]: value }), option).not.toThrow();
    }
  });

  test("what is computed more exactly than asked is told in one sentence, what has no effect in another", () => {
    const notes: string[] = [];
    const given = {
      ...{ bf16: true, tf32: true, torch_dtype: "bfloat16", attn_implementation: "flash_attention_2" },
      ...{ optim: "adamw_bnb_8bit", model_init_kwargs: { use_cache: false, dtype: "bfloat16" } },
      ...{ dataloader_num_workers: 4, ddp_timeout: 1800, disable_tqdm: false, remove_unused_columns: true },
    };
    const config = parseKtoConfig({ ...required, ...given }, undefined, { onNote: (note) => notes.push(note) });
    expect(config).toMatchObject({ bf16: true, dtype: "bfloat16" });
    expect(notes).toEqual([
      "tf32, attn_implementation, model_init_kwargs: what is computed is exact attention, in the precision that fp16 and bf16 say (float32 without them).",
      "without effect here (speed, memory and reporting elsewhere): dataloader_num_workers, ddp_timeout, remove_unused_columns.",
    ]);
  });

  test.each([
    ["optim", "adamw_torch_fused"],
    ["optim", "paged_adamw_8bit"],
    ["optim", "adamw_torch_4bit"],
    ["warmup_steps", 0.1],
    ["eval_steps", 500],
    ["logging_steps", 0.05],
    ["save_steps", 0.5],
    ["data_seed", 7],
    ["max_completion_length", 128],
    ["truncation_mode", "keep_start"],
  ])("%s %j is accepted", (name, value) => {
    expect(() => parseKtoConfig({ ...required, [name]: value })).not.toThrow();
  });

  test.each([
    ["optim", "lion_32bit", 'option "optim" is "lion_32bit"; it must be "adamw'],
    [
      "loss_type",
      "bco",
      'has a running mean as its reference point and is another method (TRL\'s BCOTrainer): use "kto"',
    ],
    ["model_init_kwargs", { revision: "v2" }, "model_revision and dtype are options of their own"],
    ["label_smoothing_factor", 0.1, "is not implemented yet"],
    ["lora_task_type", "SEQ_CLS", "is another kind of model"],
    ["per_gpu_train_batch_size", 2, "set per_device_train_batch_size"],
  ])("%s %j is refused by name", (name, value, reason) => {
    expect(() => parseKtoConfig({ ...required, [name]: value })).toThrow(reason);
  });

  test("all that is refused is told at once", () => {
    const given = { ...required, bata: 1, beta: -1, optim: "sgd", deepspeed: "ds.json", learning_rate: "fast" };
    const problems = () => parseKtoConfig(given, undefined, { problems: ["the file has a fault."] });
    for (const part of [
      "6 things must be changed: the file has a fault.",
      '"bata"',
      '"beta" is -1',
      '"optim" is "sgd"',
    ]) {
      expect(problems).toThrow(part);
    }
    expect(problems).toThrow('"deepspeed"');
    expect(problems).toThrow('"learning_rate" is "fast"');
  });
});

/** Features that are refused by name unless they are switched off; the options that only shape them are not here. */
const refused: Readonly<Record<string, readonly string[]>> = {
  llamafactory: [
    ...["train_on_prompt", "interleave_probs", "packing", "neat_packing", "tool_format", "default_system"],
    ...["preserve_thinking", "loraplus_lr_ratio", "pissa_init", "pissa_convert", "module_dropout"],
    ...["ref_model_adapters", "ref_model_quantization_bit", "reward_model", "use_galore", "use_apollo", "use_badam"],
    ...["use_llama_pro", "use_adam_mini", "use_mca", "use_megatron_bridge", "use_hyper_parallel", "use_muon"],
    ...["use_dft_loss", "use_asft_loss", "use_eaft_loss", "resize_vocab", "split_special_tokens", "add_tokens"],
    ...["add_special_tokens", "new_special_tokens_config", "rope_scaling", "shift_attn", "mixture_of_depths"],
    ...["train_from_scratch", "use_kt", "fp8", "fp8_enable_fsdp_float8_all_gather"],
  ],
  axolotl: [
    ...["auto_resume_from_checkpoints", "resize_token_embeddings_to_32x", "mean_resizing_embeddings"],
    ...["shrink_embeddings", "reinit_weights", "trainer_cls", "ebft", "qat", "quantization", "reward_model"],
    ...["process_reward_model", "num_labels", "dataset_shard_num", "dataset_shard_idx", "skip_prepare_dataset"],
    ...["pretraining_dataset", "dataset_exact_deduplication", "push_dataset_to_hub", "do_causal_lm_eval"],
    ...["do_bench_eval", "fp8", "fp8_enable_fsdp_float8_all_gather", "freeze_mm_modules", "unfrozen_parameters"],
    ...["eval_sequence_len", "min_sample_len", "curriculum_sampling", "batch_flattening", "use_pose"],
    ...["pose_split_on_token_ids", "pose_max_context_len", "pose_num_chunks", "pretraining_sample_concatenation"],
    ...["streaming", "quantize_moe_experts", "scaling_softmax", "scaling_softmax_bias", "use_eaft"],
    ...["llama4_linearized_experts", "tokens", "added_tokens_overrides", "chat_template_jinja", "eot_tokens"],
    ...["default_system_message", "fix_untrained_tokens", "generate_samples", "max_packed_sequence_len"],
    ...["rope_scaling", "overrides_of_model_config", "overrides_of_model_kwargs"],
    ...["type_of_model", "lisa_n_layers", "lisa_step_interval", "cls_model_config", "processor_kwargs"],
    ...["model_quantization_config", "model_quantization_config_kwargs", "use_onebitllms"],
    ...["peft", "peft_layer_replication"],
    ...["peft_trainable_token_indices", "peft_ensure_weight_tying", "gptq", "bnb_config_kwargs"],
    ...["loraplus_lr_ratio", "merge_lora", "relora", "embedding_lr", "embedding_lr_scale", "lr_quadratic_warmup"],
    ...["cosine_constant_lr_ratio", "lr_div_factor", "lr_groups", "adam_epsilon2", "adam_beta3"],
    ...["jagged_restart_steps", "jagged_restart_warmup_steps", "jagged_restart_anneal_steps"],
  ],
};

describe.each<[string, Dialect]>([
  ["llamafactory", llamaFactory],
  ["axolotl", axolotl],
])("%s", (product, dialect) => {
  const list = Object.entries(lists[Object.keys(lists).find((name) => name.startsWith(product)) ?? ""] ?? {});

  test("every option is translated, without effect or refused by name", async () => {
    expect(list.length).toBeGreaterThan(200);
    const unknown: string[] = [];
    for (const [name] of list) {
      const { problems } = await dialect.translate({ [name]: "x" }, ourOption);
      if (problems.some((problem) => problem.includes("has no counterpart here"))) unknown.push(name);
    }
    expect(unknown.toSorted()).toEqual([...(refused[product] ?? [])].toSorted());
  });

  test("every default is accepted but that of the kind of training", async () => {
    for (const [name, value] of list) {
      const kind = product === "axolotl" ? { rl: "kto" } : {};
      const { problems } = await dialect.translate({ ...kind, [name]: value }, ourOption);
      if (name !== "stage" && name !== "rl") expect(problems, name).toEqual([]);
    }
  });
});
