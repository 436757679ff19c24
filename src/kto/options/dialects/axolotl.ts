/**
 * axolotl's configurations of `rl: kto`, after its schemas of July 2026. Its kinds of rows (`type: llama3.ultra`, ...)
 * are text with markup around it, which `axolotl-rows.ts` writes down.
 */
import { shown } from "../../../errors.ts";
import { isOff } from "../values.ts";
import { rowForm } from "./axolotl-rows.ts";
import { listOfDataSets } from "./datasets.ts";
import {
  type Dialect,
  flag,
  type OptionsInFile,
  only,
  onOff,
  Refused,
  type Rule,
  type Table,
  translated,
  yesOrNo,
} from "./dialect.ts";

const ATTENTION = "is another attention";

function isOn(value: unknown): boolean {
  return yesOrNo(value) === true;
}

/** The members of a mapping; undefined for a value that is none. */
function membersOf(value: unknown): OptionsInFile | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as OptionsInFile) : undefined;
}

const NO_MAPPING = new Refused("is no mapping of names to values", "write it as one");

/** A share of the run from a number per epoch; at most one at the end is one every epoch. */
function perEpoch(
  count: unknown,
  { num_epochs: epochs = 1 }: OptionsInFile,
  name: "eval" | "save",
): OptionsInFile | Refused {
  if (!["number", "string"].includes(typeof count) || !(Number(count) > 0)) {
    return new Refused("is no number above 0", "give how often in an epoch");
  }
  const share = 1 / (Number(count) * Number(epochs));
  const atStart = name === "eval" ? { eval_on_start: true } : {};
  if (share < 1) return { [`${name}_strategy`]: "steps", [`${name}_steps`]: share, ...atStart };
  return { [`${name}_strategy`]: "epoch", ...atStart };
}

function besides(other: string): Refused {
  return new Refused(`stands beside ${other}, and both say when`, "keep one of them");
}

function evaluates({ val_set_size: share, test_datasets: sets }: OptionsInFile): boolean {
  return !isOff(share ?? null) || !isOff(sets ?? null);
}

function dataSets(value: unknown): OptionsInFile | Refused {
  return listOfDataSets(value, ["type", "trust_remote_code", "ds_type"], ({ type }) => rowForm(type));
}

/** The trackers that several options name. A project of Weights & Biases is one of its trackers too. */
function trackers(_: unknown, all: OptionsInFile): OptionsInFile {
  const asked = {
    wandb: isOn(all.use_wandb) || !isOff(all.wandb_project ?? null),
    tensorboard: isOn(all.use_tensorboard),
    mlflow: isOn(all.use_mlflow),
  };
  const names = Object.entries(asked).flatMap(([name, is]) => (is ? [name] : []));
  return names.length === 0 ? {} : { report_to: names };
}

const sameAsModel: Rule = (value, { base_model: model }) =>
  value === model ? {} : new Refused("is not base_model", "put its files into the model's folder");

const bf16 = flag("bf16", { whenTrue: true, whenFalse: false });
const checkpointing = flag("gradient_checkpointing", { whenTrue: true, whenFalse: false });
const oneDevice = only([1], "takes several devices");

const rules: Readonly<Record<string, Rule>> = {
  base_model: "model_name_or_path",
  base_model_config: sameAsModel,
  tokenizer_config: sameAsModel,
  revision_of_model: "model_revision",
  rl: (value) => (value === "kto" ? {} : new Refused("is another kind of training", 'only "kto" is trained')),
  rl_beta: "beta",
  trl: (value) => {
    const members = membersOf(value);
    if (members === undefined) return NO_MAPPING;
    const { beta, ...others } = members;
    const other = Object.entries(others).find(([, one]) => !isOff(one));
    if (other !== undefined) return new Refused(`has ${other[0]}, which KTO does not read`, "keep beta alone");
    return beta === undefined || beta === null ? {} : { beta };
  },
  kto_desirable_weight: (value) => (isOff(value) ? {} : { desirable_weight: value }),
  kto_undesirable_weight: (value) => (isOff(value) ? {} : { undesirable_weight: value }),
  adapter: (value) => {
    if (value === "lora") return { use_peft: true };
    if (value === "qlora") return { use_peft: true, load_in_4bit: true };
    return isOff(value) ? {} : new Refused("is no adapter that is trained here", 'use "lora" or "qlora"');
  },
  load_in_4bit: flag("load_in_4bit", { whenTrue: true }),
  load_in_8bit: flag("load_in_8bit", { whenTrue: true }),
  lora_model_dir: (value) => (isOff(value) ? {} : { adapter_name_or_path: value }),
  lora_target_linear: onOff((linear, { lora_target_modules: named }) =>
    linear && named === undefined ? { lora_target_modules: ["all-linear"] } : {},
  ),
  lora_target_modules: (value, { lora_target_linear: linear }) =>
    isOff(value) ? {} : { lora_target_modules: isOn(linear) ? ["all-linear"] : value },
  ...Object.fromEntries(
    ["lora_modules_to_save", "lora_exclude_modules", "lora_rank_pattern", "lora_alpha_pattern"].map(
      (name): [string, Rule] => [name, (value) => (isOff(value) ? {} : { [name]: value })],
    ),
  ),
  peft_layers_to_transform: (value) => (isOff(value) && value !== 0 ? {} : { lora_layers_to_transform: value }),
  peft_layers_pattern: (value) => (isOff(value) ? {} : { lora_layers_pattern: value }),
  // The alias of it that older files have.
  noisy_embedding_alpha: (value) => (isOff(value) ? {} : { neftune_noise_alpha: value }),
  neftune_noise_alpha: (value) => (isOff(value) ? {} : { neftune_noise_alpha: value }),
  peft_use_rslora: flag("use_rslora", { whenTrue: true }),
  peft_use_dora: flag("use_dora", { whenTrue: true }),
  peft_init_lora_weights: only([true, "true"], "is another start of an adapter"),
  datasets: dataSets,
  test_datasets: (value, { datasets }) => {
    const [sets, training] = [dataSets(value), dataSets(datasets ?? value)];
    if (sets instanceof Refused) return sets;
    if (training instanceof Refused) return {}; // told of the rows to train on
    const { dataset_name: eval_dataset_name, dataset_train_split: dataset_test_split = "train", ...form } = sets;
    const differs = Object.keys(form).find((name) => shown(form[name]) !== shown(training[name]));
    if (differs !== undefined) return new Refused(`has another ${differs} than datasets`, "give them alike");
    return { eval_dataset_name, dataset_test_split };
  },
  shuffle_merged_datasets: flag("shuffle_dataset", { whenTrue: true, whenFalse: false }),
  val_set_size: (value) => (isOff(value) ? {} : { validation_split: value }),
  dataset_processes: "dataset_num_proc",
  sequence_len: "max_length",
  sample_packing: only([false], "axolotl refuses for KTO as well"),
  micro_batch_size: "per_device_train_batch_size",
  eval_batch_size: "per_device_eval_batch_size",
  batch_size: (value, { micro_batch_size: rows = 1, gradient_accumulation_steps: steps }) =>
    steps === undefined && Number.isInteger(Number(value) / Number(rows))
      ? { gradient_accumulation_steps: Number(value) / Number(rows) }
      : new Refused("does not go with the other sizes", "set micro_batch_size and gradient_accumulation_steps"),
  num_epochs: "num_train_epochs",
  optimizer: "optim",
  lr_scheduler: "lr_scheduler_type",
  cosine_min_lr_ratio: (value) =>
    isOff(value)
      ? {}
      : new Refused(
          "is a schedule of its own",
          'use lr_scheduler "cosine_with_min_lr" with lr_scheduler_kwargs {"min_lr_rate": ...}',
        ),
  evals_per_epoch: (value, all) => (evaluates(all) && !isOff(value) ? perEpoch(value, all, "eval") : {}),
  saves_per_epoch: (value, all) => (isOff(value) ? {} : perEpoch(value, all, "save")),
  eval_steps: (value, all) => {
    if (!isOff(value) && !isOff(all.evals_per_epoch ?? null)) return besides("evals_per_epoch");
    return evaluates(all) && !isOff(value) ? { eval_steps: value, eval_on_start: true } : {};
  },
  save_steps: (value, all) => {
    if (!isOff(value) && !isOff(all.saves_per_epoch ?? null)) return besides("saves_per_epoch");
    return isOff(value) ? {} : { save_strategy: "steps", save_steps: value };
  },
  bf16: (value, all) => (value === "auto" || value === "full" ? { bf16: true } : bf16(value, all)),
  bfloat16: flag("bf16", { whenTrue: true }),
  fp16: onOff((isFp16, { bf16 }) => ({ fp16: isFp16 && isOff(bf16 ?? null) })),
  float16: flag("fp16", { whenTrue: true }),
  tf32: "tf32",
  gradient_checkpointing: (value, all) =>
    value === "offload" || value === "offload_disk" ? { gradient_checkpointing: true } : checkpointing(value, all),
  s2_attention: only([false], ATTENTION),
  chat_template: (value) => (value === "tokenizer_default" ? {} : { chat_template_name: value }),
  special_tokens: (value) => {
    const members = membersOf(value);
    if (members === undefined) return NO_MAPPING;
    const other = Object.keys(members).find((name) => name !== "pad_token");
    return other === undefined
      ? {}
      : new Refused(`changes ${other}`, "put it into the model folder's tokenizer_config.json");
  },
  plugins: (value) => {
    const names = Array.isArray(value) ? value.map(String) : [String(value)];
    const other = names.find((name) => !/liger|cut_cross_entropy/i.test(name));
    return other === undefined ? {} : new Refused(`has ${shown(other)}, which is not known here`);
  },
  use_wandb: onOff(trackers),
  wandb_project: trackers,
  use_tensorboard: onOff(trackers),
  use_mlflow: onOff(trackers),
  mlflow_run_name: (value) => (isOff(value) ? {} : { run_name: value }),
  // Its repositories are private.
  hub_model_id: (value) => (isOff(value) ? {} : { push_to_hub: true, hub_model_id: value, hub_private_repo: true }),
  dp_replicate_size: oneDevice,
  dp_shard_size: oneDevice,
  sequence_parallel_degree: oneDevice,
  context_parallel_size: oneDevice,
  tensor_parallel_size: oneDevice,
  debug: flag("debug", { whenTrue: true, whenFalse: false }),
};

/** Speed, memory, reporting, other kinds of training, and parameters of what is refused by its own flag. */
const idle = new Set([
  ...["axolotl_config_path", "center_rewards_coefficient", "chunked_cross_entropy", "cpo_alpha", "cut_cross_entropy"],
  ...["chunked_cross_entropy_num_chunks", "dataset_keep_in_memory", "dataset_prepared_path", "ddp", "deepcompile"],
  ...["float32", "fp32_norm_classes", "fp32_norms", "tiled_mlp"],
  ...["device", "device_map", "dynamic_checkpoint", "eaft_alpha", "eaft_k", "eager_attention"],
  ...["embeddings_skip_upcast", "eval_causal_lm_metrics", "eval_sample_packing", "eval_table_size"],
  ...["experimental_skip_move_to_device", "experts_implementation", "fsdp_final_state_dict_type", "fsdp_version"],
  ...["fused_attn_kernel", "gc_collect_steps", "gc_steps", "gpu_memory_limit", "heads_k_stride"],
  ...["hf_mlflow_log_artifacts", "hf_use_auth_token", "hub_private_repo", "include_tkps", "is_preprocess"],
  ...["large_head_attention", "layer_offloading", "lisa_layers_attribute", "lora_embedding_kernel"],
  ...["lora_fan_in_fan_out", "lora_mlp_kernel", "lora_o_kernel", "lora_on_cpu", "lora_qkv_kernel"],
  ...["loraplus_lr_embedding", "low_cpu_mem_usage", "max_memory", "max_prompt_len", "merge_method"],
  ...["mlflow_experiment_name", "mlflow_tracking_uri", "mode", "model_type", "multipack_real_batches", "orpo_alpha"],
  ...["num_dataset_shards_to_save", "pad_to_sequence_len", "peft_autocast_adapter_dtype", "preprocess_iterable"],
  ...["processor_type", "qlora_sharded_model_loading", "relora_cpu_offload", "relora_prune_method", "rpo_alpha"],
  ...["relora_prune_ratio", "resources_per_worker", "ring_attn_func", "sage_attention", "save_first_step"],
  ...["scaling_softmax_factor", "sdp_attention", "sdpa_varlen", "selective_checkpointing"],
  ...["shuffle_before_merging_datasets", "simpo_gamma", "streaming_multipack_buffer_size", "strict"],
  ...["torch_compile_options", "torchdistx_path", "total_num_tokens", "total_supervised_tokens", "train_on_inputs"],
  ...["use_comet", "use_kernels", "use_otel_metrics", "use_ray", "use_trackio", "world_size", "xformers_attention"],
  ...["gemma4_hybrid_attn_impl", "tokenizer_legacy", "tokenizer_save_jinja_files", "tokenizer_type"],
  ...["tokenizer_use_fast", "tokenizer_use_mistral_common", "vllm"],
]);
const idleGroups =
  /^(bench|comet|dion|dpo|flash|flex|generation|gradio|is_\w+_derived|liger|loss_watchdog|num_generation|otel|pretrain|profiler|qgalore|ray|sample_packing|tiled_mlp|trackio|wandb)_/;
const isIdle = (name: string) => idle.has(name) || idleGroups.test(name);

const table: Table = {
  rules,
  stands: { datasets: "dataset_name" },
  isIdle,
  defaults: (values) => ({
    ...(isOff(values.adapter ?? null) ? {} : { lora_dropout: 0, lora_r: 8, lora_alpha: 8 }),
    max_length: 512,
    excess_length_strategy: "drop",
    per_device_train_batch_size: 1,
    num_train_epochs: 1,
    lr_scheduler_type: "cosine",
    output_dir: "./model-out",
    save_strategy: "epoch",
    save_total_limit: 4,
    ...(values.warmup_steps === undefined && values.warmup_ratio === undefined ? { warmup_ratio: 0.03 } : {}),
  }),
};

export const axolotl: Dialect = {
  product: "axolotl",
  recognises: (values) =>
    ["rl", "rl_beta"].some((name) => Object.hasOwn(values, name)) ||
    (Object.hasOwn(values, "base_model") &&
      ["micro_batch_size", "sequence_len"].some((name) => Object.hasOwn(values, name))),
  knows: (name) => Object.hasOwn(rules, name) || isIdle(name),
  translate: async (values, ourName) => {
    const { problems, ...translation } = translated(values, table, ourName);
    // Without it axolotl imitates all rows, whatever their labels are.
    const missing = isOff(values.rl ?? null)
      ? ['option "rl" is missing, so axolotl would fine-tune without feedback: set rl to "kto", or use kto sft.']
      : [];
    return { ...translation, problems: [...missing, ...problems] };
  },
};
