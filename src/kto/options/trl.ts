/**
 * The options of TRL's `KTOConfig`, `ScriptArguments` and `ModelConfig` (and of transformers' `TrainingArguments` below
 * them, of versions 4 and 5) that this trainer does not have. A configuration written for TRL is accepted as long as it
 * asks for nothing that would change the result and is not done here: that is refused, never ignored. What concerns
 * only speed, memory or where numbers are reported is accepted without effect, and so is what asks for coarser numbers
 * than are computed here. An option that is implemented moves from here to the file of its kind.
 */
import type { ForeignOption } from "./parse.ts";
import { OFF } from "./values.ts";

/** What changes neither the training nor its result here. */
const WITHOUT_EFFECT = [
  ...["_n_gpu", "accelerate_config", "accelerator_config", "activation_offloading", "auto_find_batch_size"],
  ...[
    "average_tokens_across_devices",
    "base_model_attribute_name",
    "bnb_4bit_quant_storage",
    "batch_eval_metrics",
    "dataset_streaming",
  ],
  ...["dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_num_workers"],
  ...["dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor"],
  ...["ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_static_graph"],
  ...["ddp_timeout", "disable_tqdm", "do_eval", "do_train", "enable_jit_checkpoint", "env", "eval_accumulation_steps"],
  ...["eval_do_concat_batches", "eval_use_gather_object", "force_use_ref_model", "fsdp_min_num_params"],
  ...["fsdp_transformer_layer_cls_to_wrap", "full_determinism", "gradient_checkpointing_kwargs"],
  ...["gradient_checkpointing_use_reentrant", "hub_always_push", "hub_revision"],
  ...["ignore_bias_buffers", "include_for_metrics", "include_inputs_for_metrics"],
  ...["include_num_input_tokens_seen", "include_tokens_per_second", "jit_mode_eval", "label_names"],
  ...["label_pad_token_id", "length_column_name", "liger_kernel_config", "local_rank", "log_level_replica"],
  ...["log_on_each_node", "logging_nan_inf_filter", "logging_strategy", "mp_parameters", "no_cuda", "pad_token"],
  ...["pad_to_multiple_of", "padding_free", "padding_value", "past_index", "precompute_ref_batch_size"],
  ...["prediction_loss_only", "project", "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token"],
  ...["ray_scope", "remove_unused_columns", "restore_callback_states_from_checkpoint", "router_aux_loss_coef"],
  ...["save_on_each_node", "save_safetensors", "skip_memory_metrics", "torch_compile", "torch_compile_backend"],
  ...["torch_compile_mode", "torch_empty_cache_steps", "torchdynamo", "tpu_metrics_debug", "tpu_num_cores"],
  ...["trackio_bucket_id", "trackio_space_id", "trackio_static_space_id", "trust_remote_code", "use_cache", "use_cpu"],
  ...["use_ipex", "use_legacy_prediction_loop", "use_mps_device", "use_reentrant"],
  // In TRL it concerned models with an encoder alone, and those are not here.
  "max_completion_length",
];

/** Other arithmetic for the same numbers, at most coarser than what is done here. */
const COARSER = [
  ...["attn_implementation", "bf16_full_eval", "fp16_backend", "fp16_full_eval", "fp16_opt_level"],
  ...["half_precision_backend", "tf32", "use_liger_kernel", "use_liger_loss"],
];

/** Features by name, each refused unless switched off, with what to do instead. */
const NOT_YET: Readonly<Record<string, string>> = {
  adafactor: "AdamW is the optimizer, leave it out",
  dataloader_drop_last: "leave it out",
  deepspeed: "training runs on one adapter, leave it out",
  do_predict: "leave it out",
  eval_delay: "leave it out",
  fsdp: "training runs on one adapter, leave it out",
  fsdp_config: "training runs on one adapter, leave it out",
  generate_during_eval: "set eval_samples",
  ignore_data_skip: "leave it out; a run that is resumed goes on with the rows that come next",
  is_encoder_decoder: "models with an encoder are not here",
  label_smoothing_factor: "leave it out",
  lora_target_parameters: "leave it out; name modules in lora_target_modules",
  model_adapter_name: "leave it out",
  optim_args: "leave it out",
  optim_target_modules: "leave it out",
  parallelism_config: "training runs on one adapter, leave it out",
  per_gpu_eval_batch_size: "set per_device_eval_batch_size",
  per_gpu_train_batch_size: "set per_device_train_batch_size",
  ref_adapter_name: "leave it out",
};

/** Arguments of `from_pretrained` that say how a model is held, and not which. */
const HOW_A_MODEL_IS_HELD = [
  ...["attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype", "trust_remote_code"],
  "use_cache",
];

/** Options with their own list of values that ask for what is done anyway. */
const BY_VALUE: Readonly<Record<string, ForeignOption>> = {
  lora_task_type: { harmless: ["causal_lm", null], reason: "is another kind of model", remedy: "leave it out" },
  model_init_kwargs: modelArguments("model_revision and dtype are options of their own"),
  num_processes: { harmless: [1, null], remedy: "training runs on one adapter, leave it out" },
  ref_model_init_kwargs: modelArguments("name the reference as ref_model_name_or_path"),
};

function modelArguments(remedy: string): ForeignOption {
  return { harmless: "any", keys: HOW_A_MODEL_IS_HELD, concernsNumbers: true, remedy: `leave it out; ${remedy}` };
}

/** Every option of TRL's that this trainer does not have, by name. */
export const foreignTrlOptions: ReadonlyMap<string, ForeignOption> = new Map<string, ForeignOption>([
  ...WITHOUT_EFFECT.map((name): [string, ForeignOption] => [name, { harmless: "any" }]),
  ...COARSER.map((name): [string, ForeignOption] => [name, { harmless: "any", concernsNumbers: true }]),
  ...Object.entries(NOT_YET).map(([name, remedy]): [string, ForeignOption] => [name, { harmless: OFF, remedy }]),
  ...Object.entries(BY_VALUE),
]);

/** Names from axolotl, LLaMA-Factory, mlx-lm and ms-swift that mean one of ours, for "did you mean". */
export const otherProductsNames: Readonly<Record<string, string>> = {
  batch_size: "per_device_train_batch_size",
  micro_batch_size: "per_device_train_batch_size",
  cutoff_len: "max_length",
  max_seq_length: "max_length",
  sequence_len: "max_length",
  data: "dataset_name",
  data_path: "dataset_name",
  datasets: "dataset_name",
  train_file: "dataset_name",
  epochs: "num_train_epochs",
  num_epochs: "num_train_epochs",
  iters: "max_steps",
  kto_chosen_weight: "desirable_weight",
  kto_desirable_weight: "desirable_weight",
  kto_rejected_weight: "undesirable_weight",
  kto_undesirable_weight: "undesirable_weight",
  lr: "learning_rate",
  lr_scheduler: "lr_scheduler_type",
  grad_accumulation_steps: "gradient_accumulation_steps",
  pref_beta: "beta",
  rl_beta: "beta",
};
