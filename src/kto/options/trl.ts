/**
 * The options of TRL's `KTOConfig`, `ScriptArguments` and `ModelConfig` (and of transformers' `TrainingArguments` below
 * them) that this trainer does not have. A configuration written for TRL is accepted as long as it asks for nothing
 * that would change the result and is not done here: that is refused, never ignored. What concerns only speed or where
 * numbers are reported is accepted without effect. An option that is implemented moves from here to the file of its
 * kind.
 */
import type { ForeignOption } from "./parse.ts";

/** Values that switch a feature off, in the spellings that people use. */
export const OFF = [false, null, "no", 0, "", [], {}];

/** What changes neither the training nor its result here. */
const WITHOUT_EFFECT = [
  "attn_implementation",
  "average_tokens_across_devices",
  "batch_eval_metrics",
  "bnb_4bit_quant_storage",
  "dataloader_num_workers",
  "dataloader_persistent_workers",
  "dataloader_pin_memory",
  "dataloader_prefetch_factor",
  "dataset_num_proc",
  "dataset_streaming",
  "ddp_backend",
  "ddp_bucket_cap_mb",
  "ddp_find_unused_parameters",
  "ddp_timeout",
  "disable_tqdm",
  "eval_accumulation_steps",
  "full_determinism",
  "gradient_checkpointing_kwargs",
  "include_num_input_tokens_seen",
  "include_tokens_per_second",
  "label_names",
  "length_column_name",
  "local_rank",
  "log_level_replica",
  "logging_nan_inf_filter",
  "lora_task_type",
  "pad_to_multiple_of",
  "project",
  "remove_unused_columns",
  "save_safetensors",
  "tf32",
  "torch_compile",
  "torch_compile_backend",
  "torch_compile_mode",
  "torch_empty_cache_steps",
  "trackio_space_id",
  "trust_remote_code",
  "use_liger_kernel",
  "use_reentrant",
] as const;

/** Features by name, each refused unless switched off, with what to do instead. */
const NOT_YET: Readonly<Record<string, string>> = {
  activation_offloading: "leave it out",
  auto_find_batch_size: "set per_device_train_batch_size yourself",
  bf16_full_eval: "leave it out; evaluations compute as training does",
  data_seed: "seed sets the order of the data as well, leave it out",
  dataloader_drop_last: "leave it out",
  deepspeed: "training runs on one adapter, leave it out",
  do_eval: 'set eval_strategy to "steps" or "epoch"',
  do_predict: "leave it out",
  eval_delay: "leave it out",
  fp16_full_eval: "leave it out; evaluations compute as training does",
  fsdp: "training runs on one adapter, leave it out",
  fsdp_config: "training runs on one adapter, leave it out",
  generate_during_eval: "set eval_samples",
  label_smoothing_factor: "leave it out",
  lora_modules_to_save: "leave it out; only adapters of linear layers are trained",
  max_completion_length: "leave it out; max_length limits prompt and completion together",
  max_prompt_length: "leave it out; max_length limits prompt and completion together",
  model_adapter_name: "leave it out",
  neftune_noise_alpha: "leave it out",
  optim_args: "leave it out",
  padding_free: "leave it out; batches are packed without padding in any case",
  ref_adapter_name: "leave it out",
  sync_ref_model: "leave it out",
  use_cpu: 'set adapter to "software"',
  use_dora: "leave it out",
};

/** Options with their own list of values that ask for what is done anyway. */
const BY_VALUE: Readonly<Record<string, ForeignOption>> = {
  do_train: { harmless: [true, null], remedy: "leave it out" },
  logging_strategy: { harmless: ["steps", null], remedy: "set logging_steps" },
  model_init_kwargs: { harmless: [{}, null] },
  ref_model_init_kwargs: { harmless: [{}, null] },
  truncation_mode: { harmless: ["keep_start", null], remedy: "sequences are cut at their end, leave it out" },
};

/** Every option of TRL's that this trainer does not have, by name. */
export const foreignTrlOptions: ReadonlyMap<string, ForeignOption> = new Map<string, ForeignOption>([
  ...WITHOUT_EFFECT.map((name): [string, ForeignOption] => [name, { harmless: "any" }]),
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
