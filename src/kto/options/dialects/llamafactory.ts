/**
 * LLaMA-Factory's configurations of `stage: kto`, after its hparams of August 2026. Its data sets, which
 * dataset_info.json describes, are read in `llamafactory-data.ts`.
 */
import { isOff } from "../values.ts";
import { type Dialect, flag, only, Refused, type Rule, type Table, translated } from "./dialect.ts";
import { dataSetRules } from "./llamafactory-data.ts";

const KTO_ALONE = "is another kind of training";

function list(value: unknown): unknown {
  return typeof value === "string" ? value.split(",").map((name) => name.trim()) : value;
}

const rules: Readonly<Record<string, Rule>> = {
  stage: (value) =>
    value === "kto" ? {} : new Refused(KTO_ALONE, value === "sft" ? "run kto sft" : 'only "kto" is trained'),
  finetuning_type: (value) => {
    if (value === "lora" || value === "full") return { use_peft: value === "lora" };
    return new Refused(KTO_ALONE, 'use "lora" or "full"; freeze_parameters keeps parameters as they are');
  },
  // Its reference of a LoRA adapter is the model without any, also where the adapter was trained before.
  adapter_name_or_path: (value) =>
    String(value).includes(",")
      ? new Refused("are several adapters", "merge all but the last into the model (kto merge)")
      : { adapter_name_or_path: value, reference: "base" },
  create_new_adapter: only([false], "adds an adapter to a merged one", "merge the first into the model (kto merge)"),
  ref_model: "ref_model_name_or_path",
  pref_beta: "beta",
  kto_chosen_weight: "desirable_weight",
  kto_rejected_weight: "undesirable_weight",
  pref_ftx: only([0], "adds the loss of supervised fine-tuning", "leave it out, or run kto sft before"),
  lora_rank: "lora_r",
  lora_target: (value) => ({ lora_target_modules: value === "all" ? ["all-linear"] : list(value) }),
  additional_target: (value) => (isOff(value) ? {} : { lora_modules_to_save: list(value) }),
  template: (value) => ({ chat_template_name: value }),
  enable_thinking: (value) => ({ chat_template_kwargs: { enable_thinking: value } }),
  cutoff_len: (value) => ({ max_length: value, truncation_mode: "proportional" }),
  val_size: (value) => (isOff(value) ? {} : { validation_split: value }),
  preprocessing_num_workers: "dataset_num_proc",
  disable_shuffling: flag("shuffle_dataset", { whenTrue: false, whenFalse: true }),
  early_stopping_steps: "early_stopping_patience",
  mix_strategy: only(["concat"], "mixes data sets", "use concat"),
  pure_bf16: flag("bf16", { whenTrue: true }),
  quantization_bit: (value, all) => {
    if (value === 8) return { load_in_8bit: true };
    if (value !== 4) return new Refused("is no size of quantised weights here", "use 4 or 8");
    return {
      load_in_4bit: true,
      bnb_4bit_quant_type: all.quantization_type ?? "nf4",
      use_bnb_nested_quant: all.double_quantization ?? true,
    };
  },
  quantization_type: () => ({}),
  double_quantization: () => ({}),
  quantization_method: only(["bnb", "BNB", "bitsandbytes"], "is another quantisation", 'use "bnb"'),
};

/** Speed, memory, reporting, other stages of training, and parameters of methods that are refused by their flag. */
const idle = new Set([
  ...["adapter_folder", "asft_alpha", "buffer_size", "cache_dir", "compute_accuracy", "crop_to_patches"],
  ...["data_shared_file_system", "device_map", "disable_gradient_checkpointing", "dpo_label_smoothing", "eaft_alpha"],
  ...["enable_liger_kernel", "enable_torch_profiler", "eval_num_beams", "eval_on_each_dataset", "flash_attn"],
  ...["fp8_backend", "freeze_extra_modules", "freeze_language_model", "freeze_multi_modal_projector"],
  ...["freeze_trainable_layers", "freeze_trainable_modules", "freeze_vision_tower", "hf_hub_token"],
  ...["ignore_pad_token_for_loss", "include_effective_tokens_per_second", "init_special_tokens", "ld_alpha"],
  ...["loraplus_lr_embedding", "low_cpu_mem_usage", "mask_history", "master_addr", "master_port", "media_dir"],
  ...["moe_aux_loss_coef", "ms_hub_token", "offload_folder", "om_hub_token", "oft_block_size", "oft_rank"],
  ...["oft_target", "pissa_iter", "plot_loss", "pref_bco_weight", "pref_loss", "preprocessing_batch_size"],
  ...["print_param_status", "profile_modules", "quantization_device_map", "ray_init_kwargs", "ray_num_workers"],
  ...["simpo_gamma", "streaming", "tokenized_path", "upcast_layernorm", "upcast_lmhead_output", "use_audio_in_video"],
  ...["use_fast_tokenizer", "use_kv_cache", "use_reentrant_gc", "use_swanlab", "use_unsloth", "use_unsloth_gc"],
  ...["use_v1_kernels", "audio_sampling_rate", "block_diag_attn", "compute_dtype", "model_max_length"],
  // Of generation, which a training does not do.
  ...["do_sample", "length_penalty", "max_length", "max_new_tokens", "num_beams", "repetition_penalty"],
  ...["skip_special_tokens", "temperature", "top_k", "top_p"],
]);
const idleGroups =
  /^(_?kt|apollo|badam|export|galore|generation|hyper_parallel|image|infer|megatron_bridge|ppo|profiler|reward_model|sglang|swanlab|video|vllm)_/;
const isIdle = (name: string) => idle.has(name) || idleGroups.test(name);

const table: Table = {
  rules,
  stands: { dataset: "dataset_name" },
  isIdle,
  defaults: ({ lora_rank: rank = 8, finetuning_type: type = "lora" }) => ({
    ...(type === "lora"
      ? {
          use_peft: true,
          lora_r: 8,
          // A rank that is no number is told under its own name.
          ...(Number.isFinite(Number(rank)) ? { lora_alpha: 2 * Number(rank) } : {}),
          lora_dropout: 0,
          lora_target_modules: ["all-linear"],
        }
      : {}),
    max_length: 2048,
    truncation_mode: "proportional",
    learning_rate: 5e-5,
  }),
};

export const llamaFactory: Dialect = {
  product: "LLaMA-Factory",
  recognises: (values) => ["stage", "finetuning_type", "pref_beta"].some((name) => Object.hasOwn(values, name)),
  knows: (name) => Object.hasOwn(rules, name) || isIdle(name) || name === "dataset_dir",
  translate: async (values, ourName) => {
    const data = await dataSetRules(values);
    const { entries, ...rest } = translated(values, { ...table, rules: { ...rules, ...data.rules } }, ourName);
    return { ...rest, entries, problems: [...rest.problems, ...data.problems] };
  },
};
