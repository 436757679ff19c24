/** The trainer's options: what a user may write, what is refused and in which words, what is advised against. */
import { describe, expect, test } from "vitest";
import { ConfigError } from "../../../src/errors.ts";
import { type AdviceFacts, configAdvice } from "../../../src/kto/options/advice.ts";
import { parseKtoConfig, trainerOptions } from "../../../src/kto/options/kto.ts";
import { unusedLoraOptions } from "../../../src/kto/options/lora.ts";
import { editDistance } from "../../../src/kto/options/names.ts";
import { quantizationOf } from "../../../src/kto/options/quantization.ts";
import { sftTrainerOptions } from "../../../src/kto/options/sft.ts";

const required = { model_name_or_path: "model", dataset_name: "rows.jsonl", output_dir: "out" };

function messageOf(input: Record<string, unknown>, where?: (name: string) => string): string {
  try {
    parseKtoConfig(Object.fromEntries([...Object.entries(required), ...Object.entries(input)]), where);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error("no ConfigError was thrown");
}

describe("defaults and coercion", () => {
  test("the README's promise: three options are enough, and the rest is TRL's", () => {
    expect(parseKtoConfig(required)).toMatchObject({
      ref_model_name_or_path: "model",
      beta: 0.1,
      desirable_weight: 1,
      loss_type: "kto",
      reference_point_scope: "microbatch",
      max_length: 1024,
      per_device_train_batch_size: 8,
      learning_rate: 5e-6,
      lr_scheduler_type: "linear",
      num_train_epochs: 3,
      max_steps: -1,
      adam_epsilon: 1e-8,
      shuffle_dataset: true,
    });
  });

  test.each([
    ["report_to", "none", ["none"]],
    ["report_to", ["tensorboard", "mlflow"], ["tensorboard", "mlflow"]],
    ["learning_rate", "1e-4", 1e-4],
    ["learning_rate", ".5E-6", 5e-7],
    ["max_steps", "1_000", 1000],
    ["shuffle_dataset", "no", false],
    ["shuffle_dataset", "False", false],
    ["logging_first_step", "yes", true],
    ["logging_first_step", 1, true],
    ["desirable_weight", "auto", "auto"],
    ["desirable_weight", "13.33", 13.33],
    ["loss_type", "kto_zero", "apo_zero_unpaired"],
    ["adapter", 1, "1"],
    ["output_dir", 2024, "2024"],
    ["ref_model_name_or_path", "None", "model"],
    ["max_length", null, Number.MAX_SAFE_INTEGER],
    ["chat_template_kwargs", '{"enable_thinking": false}', { enable_thinking: false }],
    ["chat_template_kwargs", { date_string: "1 May" }, { date_string: "1 May" }],
  ])("%s: %j is read as people mean it", (name, written, value) => {
    expect(parseKtoConfig({ ...required, [name]: written })).toHaveProperty(name, value);
  });

  test("aliases and kebab-case name the same option", () => {
    const config = parseKtoConfig({ "base-model": "m", dataset: "d", output: "o", "Max-Steps": 5 });
    expect(config).toMatchObject({ model_name_or_path: "m", dataset_name: "d", output_dir: "o", max_steps: 5 });
    expect(messageOf({ model: "other" })).toBe(
      'options "model_name_or_path" and "model" are the same option but say "model" and "other": keep one.',
    );
  });
});

describe("refusals", () => {
  test.each([
    ["beta", -0.5, 'option "beta" is -0.5; it must be a number above 0.'],
    ["beta", "0", 'option "beta" is 0; it must be a number above 0.'],
    ["beta", "high", 'option "beta" is "high"; it must be a number above 0.'],
    ["beta", true, 'option "beta" is true; it must be a number above 0.'],
    ["beta", null, 'option "beta" is null; it must be a number above 0.'],
    ["beta", Number.POSITIVE_INFINITY, 'option "beta" is Infinity; it must be a number above 0.'],
    ["desirable_weight", 0, 'option "desirable_weight" is 0; it must be a number above 0 or "auto".'],
    ["loss_type", "ipo", 'option "loss_type" is "ipo"; it must be "kto" or "apo_zero_unpaired".'],
    ["warmup_ratio", 1.5, 'option "warmup_ratio" is 1.5; it must be a number from 0 to 1.'],
    [
      "max_steps",
      0,
      'option "max_steps" is 0; it must be a whole number of at least 1, or -1 for as many as the epochs need.',
    ],
    [
      "logging_steps",
      2.5,
      'option "logging_steps" is 2.5; it must be a whole number of at least 1, or a share of the run between 0 and 1.',
    ],
    ["shuffle_dataset", "maybe", 'option "shuffle_dataset" is "maybe"; it must be true or false.'],
    ["output_dir", "", 'option "output_dir" is ""; it must be a folder for the results.'],
    ["seed", -1, 'option "seed" is -1; it must be a whole number from 0 to 4294967295.'],
    ["adam_beta2", [0.9], 'option "adam_beta2" is [0.9]; it must be a number from 0 to below 1.'],
  ])("%s: %j", (name, written, message) => {
    expect(messageOf({ [name]: written })).toBe(message);
  });

  test("a missing option is named with what it should be", () => {
    expect(() => parseKtoConfig({ model_name_or_path: "m", output_dir: "o" })).toThrow(
      'option "dataset_name" is required: a local feedback file, several with commas between them, a folder, or the hub id of a data set.',
    );
  });

  test("an update of one row has no mismatched pair, and the sentence says so", () => {
    expect(messageOf({ per_device_train_batch_size: 1 })).toMatch(
      /^option "per_device_train_batch_size" is 1, but the reference point is measured on mismatched pairs.*use at least 2, or set gradient_accumulation_steps.*"step"/,
    );
  });

  test("with the reference point at 0 there are no pairs, so one row will do", () => {
    const config = parseKtoConfig({ ...required, per_device_train_batch_size: 1, loss_type: "apo_zero_unpaired" });
    expect(config.per_device_train_batch_size).toBe(1);
  });

  test("the place follows the option's name", () => {
    const message = messageOf({ beta: -1 }, (name) => (name === "beta" ? " in run.yaml" : ""));
    expect(message).toBe('option "beta" in run.yaml is -1; it must be a number above 0.');
  });
});

describe("what could only fail once a model is loaded, or be lost without a word", () => {
  test.each<[string, unknown, string]>([
    [
      "freeze_parameters",
      ["norm", "("],
      'option "freeze_parameters" is ["norm","("]; it must be regular expressions such as embed_tokens or layers\\.[0-3]\\..',
    ],
    [
      "num_train_epochs",
      "1e300",
      'option "num_train_epochs" is 1e+300; it must be a number above 0 and at most 1000000.',
    ],
    ...["lr_scheduler_kwargs", "chat_template_kwargs", "column_mapping", "judge_request"].map(
      (name): [string, unknown, string] => [
        name,
        '{"__proto__": "a"}',
        `option "${name}" has the key "__proto__", which it cannot have: remove it.`,
      ],
    ),
    [
      "lr_scheduler_kwargs",
      { constructor: 1 },
      'option "lr_scheduler_kwargs" has "constructor", but lr_scheduler_type "linear" takes none.',
    ],
  ])("%s: %j", (name, written, message) => {
    expect(messageOf({ [name]: written })).toBe(message);
  });

  test("an option of the name __proto__", () => {
    expect(messageOf(JSON.parse('{"__proto__": 1}'))).toMatch(/^unknown option "__proto__"/);
  });
});

describe("schedules", () => {
  const decay = { lr_scheduler_type: "warmup_stable_decay" };
  const polynomial = { lr_scheduler_type: "polynomial" };
  const lowest = { lr_scheduler_type: "cosine_with_min_lr" };

  test("a share as warm-up, and parameters as numbers in their own order", () => {
    const kwargs = '{"min_lr_ratio": "0.1", "num_decay_steps": 4, "decay_type": null}';
    const config = parseKtoConfig({ ...required, ...decay, warmup_steps: ".1", lr_scheduler_kwargs: kwargs });
    expect(config.warmup_steps).toBe(0.1);
    expect(JSON.stringify(config.lr_scheduler_kwargs)).toBe('{"num_decay_steps":4,"min_lr_ratio":0.1}');
    expect(parseKtoConfig({ ...required, lr_scheduler_kwargs: null }).lr_scheduler_kwargs).toEqual({});
  });

  test.each([
    [
      { warmup_steps: 1.5 },
      'option "warmup_steps" is 1.5; it must be a whole number of at least 0, or a share of all updates below 1.',
    ],
    [
      { lr_scheduler_type: "reduce_lr_on_plateau" },
      'option "lr_scheduler_type" is "reduce_lr_on_plateau", which follows the evaluations, and here a run\'s rates are known before it: choose another, such as "cosine".',
    ],
    [
      { ...polynomial, lr_scheduler_kwargs: { powr: 2 } },
      'option "lr_scheduler_kwargs" has "powr", but lr_scheduler_type "polynomial" takes power, lr_end.',
    ],
    [
      { lr_scheduler_kwargs: { num_cycles: 2 } },
      'option "lr_scheduler_kwargs" has "num_cycles", but lr_scheduler_type "linear" takes none.',
    ],
    [
      { ...polynomial, lr_scheduler_kwargs: { power: -1 } },
      'option "power" of lr_scheduler_kwargs is -1; it must be a number above 0.',
    ],
    [decay, /^option "lr_scheduler_kwargs" needs num_decay_steps, .* lr_scheduler_type "warmup_stable_decay"\.$/],
    [
      { ...decay, lr_scheduler_kwargs: { num_decay_steps: 2, decay_type: "sqrt" } },
      'option "decay_type" of lr_scheduler_kwargs is "sqrt"; it must be "linear", "cosine" or "1-sqrt".',
    ],
    [lowest, /^option "lr_scheduler_kwargs" needs min_lr or min_lr_rate, one of them,/],
    [{ ...lowest, lr_scheduler_kwargs: { min_lr: 0, min_lr_rate: 0.1 } }, /needs min_lr or min_lr_rate, one of/],
    [
      { ...lowest, lr_scheduler_kwargs: { min_lr: 1e-3 } },
      /needs min_lr below learning_rate, but they are 0\.001 and 0\.000005\.$/,
    ],
    [{ ...polynomial, learning_rate: 1e-8 }, /needs lr_end below learning_rate, but they are 1e-7 and 1e-8\.$/],
  ])("%j is refused", (input, message) => {
    if (typeof message === "string") expect(messageOf(input)).toBe(message);
    else expect(messageOf(input)).toMatch(message);
  });
});

describe("the trainer's options", () => {
  const config = parseKtoConfig({ ...required, beta: 0.2 });

  test("a command's configuration is not parsed again, and says no more than the trainer takes", () => {
    const part = trainerOptions.partOf(config);
    expect(part).toEqual(trainerOptions.parse({ beta: 0.2 }));
    expect(trainerOptions.parse(part)).toBe(part);
    expect(Object.isFrozen(part)).toBe(true);
  });

  test("options that another trainer's parser checked are refused, whose defaults are others", () => {
    const checked = trainerOptions.parse({ max_steps: 3 });
    expect(() => sftTrainerOptions.parse(checked as object)).toThrow("checked for another trainer");
    expect(() => trainerOptions.parse(sftTrainerOptions.parse({}) as object)).toThrow(ConfigError);
  });

  test("what a program gives is parsed, also a changed copy of what was", () => {
    const part = trainerOptions.partOf(config);
    expect(() => trainerOptions.parse({ ...part, beta: -1 })).toThrow(
      'option "beta" is -1; it must be a number above 0.',
    );
    expect(() => trainerOptions.parse({ ...part, weight_decay: 1e-50 })).toThrow("32-bit floating point cannot hold");
    expect(() => trainerOptions.parse({ ...part, output_dir: "o" } as object)).toThrow('unknown option "output_dir"');
    expect(sftTrainerOptions.parse({})).toMatchObject({ learning_rate: 2e-5, disable_dropout: false });
    expect(() => sftTrainerOptions.parse({ beta: 1 } as object)).toThrow("belongs to KTO");
  });
});

describe("unknown options", () => {
  test.each([
    ["learningrate", "learning_rate"],
    ["lerning_rate", "learning_rate"],
    ["bata", "beta"],
    ["max_step", "max_steps"],
    ["desireable_weight", "desirable_weight"],
    ["modle", "model"],
    ["micro_batch_size", "per_device_train_batch_size"],
    ["lr", "learning_rate"],
    ["kto_chosen_weight", "desirable_weight"],
    ["model_name", "model_name_or_path"],
    ["gradient_accumulation", "gradient_accumulation_steps"],
    ["max_length_of_rows", "max_length"],
  ])("%s: did you mean %s", (written, meant) => {
    expect(messageOf({ [written]: 1 })).toBe(`unknown option "${written}": did you mean "${meant}"?`);
  });

  test("nothing near: no guess", () => {
    expect(messageOf({ frobnicate: 1 })).toBe('unknown option "frobnicate": --help lists the options.');
  });

  test("edit distance counts a swap of neighbours as one slip", () => {
    expect(editDistance("beta", "bata")).toBe(1);
    expect(editDistance("modle", "model")).toBe(1);
    expect(editDistance("", "abc")).toBe(3);
    expect(editDistance("kitten", "sitting")).toBe(3);
  });
});

describe("options of TRL's that are not implemented", () => {
  test("a TRL configuration that asks for nothing else is accepted", () => {
    const trl = {
      fp16: "no",
      bf16: "no",
      use_peft: "False",
      lora_r: 16,
      precompute_ref_log_probs: false,
      gradient_checkpointing: false,
      report_to: null,
      push_to_hub: false,
      disable_dropout: true,
      optim: "adamw_torch",
      dtype: "auto",
      dataloader_num_workers: 4,
      remove_unused_columns: true,
      resume_from_checkpoint: null,
      model_init_kwargs: {},
    };
    expect(parseKtoConfig({ ...required, ...trl })).toEqual(parseKtoConfig(required));
  });

  test.each([
    ["optim_args", "a=1", 'option "optim_args" is "a=1", which is not implemented yet: leave it out.'],
    ["optim", "adafactor", /^option "optim" is "adafactor"; it must be "adamw_torch", /],
    [
      "lora_target_parameters",
      ["experts"],
      /^option "lora_target_parameters" is \["experts"\], which is not implemented yet/,
    ],
  ])("%s: %j is refused, not ignored", (name, written, message) => {
    expect(messageOf({ [name]: written })).toMatch(message);
  });
});

describe("a quantised base", () => {
  test("TRL's and bitsandbytes' names of one option are one", () => {
    const config = parseKtoConfig({ ...required, load_in_4bit: true, use_peft: true, bnb_4bit_use_double_quant: true });
    expect(quantizationOf(config)).toEqual({ format: "nf4", double: true, embeddings: false });
    expect(quantizationOf(parseKtoConfig({ ...required, bnb_4bit_quant_storage: "uint8" })).format).toBeUndefined();
  });

  test.each(["load_in_4bit", "load_in_8bit", "quantize_embeddings"])("%s needs an adapter", (name) => {
    expect(messageOf({ [name]: true })).toMatch(
      new RegExp(`^option "${name}" quantises the weights, .* set use_peft to train a LoRA adapter`),
    );
    expect(parseKtoConfig({ ...required, [name]: true, adapter_name_or_path: "adapter" })).toHaveProperty(name, true);
  });

  test("what cannot be had together, or at all, is refused by its name", () => {
    expect(messageOf({ load_in_4bit: true, load_in_8bit: true, use_peft: true })).toContain("are both true: keep one.");
    expect(messageOf({ bnb_4bit_quant_type: "fp4" })).toContain('"fp4", which is not implemented; nf4 is');
  });
});

describe("evaluation", () => {
  test("a configuration of TRL that does not evaluate runs, whatever it says about evaluations", () => {
    const trl = {
      evaluation_strategy: "no",
      eval_steps: 100,
      per_device_eval_batch_size: 4,
      metric_for_best_model: "loss",
    };
    expect(parseKtoConfig({ ...required, ...trl })).toMatchObject({ eval_strategy: "no", eval_steps: 100 });
  });

  test("a judge needs samples to compare, and is one", () => {
    const judged = { validation_split: 0.1, judge: "judge.mjs" };
    const nothing = "the judge has no answers to compare: give eval_samples or eval_prompts_file, the prompts that";
    for (const samples of [{}, { eval_samples: 0, eval_prompts_file: "prompts.txt" }]) {
      expect(messageOf({ ...judged, ...samples })).toContain(nothing);
    }
    expect(messageOf({ ...judged, judge_model: "qwen3", eval_samples: 2 })).toContain("name two judges: keep one.");
    expect(parseKtoConfig({ ...required, ...judged, eval_samples: 2 })).toMatchObject({ judge: "judge.mjs" });
  });

  test.each([
    ["eval_on_start", true],
    ["load_best_model_at_end", true],
    ["early_stopping_patience", 3],
    ["eval_samples", 4],
    ["eval_prompts_file", "prompts.txt"],
  ])("%s means nothing in a run that does not evaluate", (name, value) => {
    expect(messageOf({ [name]: value })).toBe(
      `option "${name}" is ${JSON.stringify(value)}, but the run does not evaluate: set eval_strategy to "steps" or "epoch", and give rows as eval_dataset_name or validation_split.`,
    );
    expect(parseKtoConfig({ ...required, [name]: value, validation_split: 0.1 })).toHaveProperty(name, value);
  });

  test("ranges, and two answers to what to evaluate on", () => {
    expect(messageOf({ eval_steps: 2.5 })).toBe(
      'option "eval_steps" is 2.5; it must be a whole number of at least 1, or a share of the run between 0 and 1.',
    );
    expect(messageOf({ validation_split: 1 })).toBe(
      'option "validation_split" is 1; it must be a share between 0 and 1, or a whole number of rows of at least 2.',
    );
    expect(messageOf({ validation_split: 0.1, eval_dataset_name: "other" })).toBe(
      "options eval_dataset_name and validation_split both say what to evaluate on: keep one.",
    );
  });
});

describe("advice", () => {
  const large: AdviceFacts = { rows: 1000, desirable: 500, undesirable: 500, parameters: 8e9 };

  test("the defaults on a large model need none", () => {
    expect(configAdvice(parseKtoConfig(required), large)).toEqual([]);
  });

  test.each([
    [{ beta: 0.001 }, large, /^beta 0\.001 is unusual/],
    [{ beta: 0.5 }, large, /^beta 0\.5 is unusual/],
    [{ learning_rate: 6e-5 }, { ...large, adapter: true }, /^learning_rate 0\.00006 is outside 5e-7 to 5e-5/],
    [{ learning_rate: 1e-3 }, large, /^learning_rate 0\.001 is outside 5e-7 to 5e-6/],
    [{ per_device_train_batch_size: 2 }, large, /^the reference point is taken over 2 rows; 8 to 128/],
    [
      { per_device_train_batch_size: 2, gradient_accumulation_steps: 4 },
      large,
      /\(reference_point_scope "step" takes it over the whole update\)\.$/,
    ],
    // Three ranks give three times the rows, but to reference points of their own where they update by themselves.
    [{ per_device_train_batch_size: 2 }, { ...large, ranks: 3 }, /^the reference point is taken over 6 rows/],
    [{ per_device_train_batch_size: 2, sync_every: 9 }, { ...large, ranks: 4 }, /^the reference point .* over 2 rows/],
    [{}, { ...large, ranks: 4, rows: 20 }, /^one update asks for 32 rows .* only 20\.$/],
    [{}, { ...large, rows: 5 }, /^one update asks for 8 rows .* only 5\.$/],
    [{ max_steps: 10, warmup_steps: 20 }, large, /^the warm-up of 20 steps does not end within the run's 10 steps/],
    [{ lr_scheduler_type: "constant", warmup_steps: 0.1 }, large, /"constant" has no warm-up, .* no effect/],
    [
      {
        ...{ max_steps: 10, warmup_steps: 4 },
        ...{ lr_scheduler_type: "warmup_stable_decay", lr_scheduler_kwargs: { num_decay_steps: 8 } },
      },
      large,
      /^warm-up and decay take 4 and 8 steps, more than the run's 10/,
    ],
    [{}, { ...large, parameters: 1e9 }, /^below 7B parameters/],
    [{}, { ...large, parameters: 1e8 }, /^below 7B parameters/],
    [{}, { ...large, prompts: 1, evaluationPrompts: 2 }, /^all rows have the same prompt, .* \(kl is 0\)/],
    [{}, { ...large, prompts: 2, evaluationPrompts: 1 }, /^all validation rows have the same prompt/],
    [{ loss_type: "apo_zero_unpaired" }, { ...large, prompts: 1, parameters: 1e9 }, /^below 7B/],
  ] as const)("%j", (input, facts, sentence) => {
    const advice = configAdvice(parseKtoConfig({ ...required, ...input }), facts);
    expect(advice).toHaveLength(1);
    expect(advice[0]).toMatch(sentence);
  });

  test.each([
    [{}, undefined],
    [{ use_peft: true, lora_r: 8 }, undefined],
    [{ lora_r: 8 }, /^without use_peft no adapter is made, .*: lora_r has no effect\.$/],
    [{ lora_r: 8, disable_dropout: false }, /: lora_r has no effect\.$/],
    [{ lora_r: 8, lora_target_modules: "all-linear" }, /: lora_r, lora_target_modules have no effect\.$/],
  ])("options of an adapter, %j", (input, sentence) => {
    const found = unusedLoraOptions(parseKtoConfig({ ...required, ...input }));
    if (sentence) expect(found).toMatch(sentence);
    else expect(found).toBeUndefined();
  });

  test("a toy model may take a toy's learning rate, a small one a larger beta; a toy is not sent to kto sft", () => {
    const config = parseKtoConfig({ ...required, learning_rate: 1e-3, beta: 0.5 });
    expect(configAdvice(config, { ...large, parameters: 260_000 })).toEqual([]);
  });

  test.each([
    { per_device_train_batch_size: 2, gradient_accumulation_steps: 4, reference_point_scope: "step" },
    { per_device_train_batch_size: 1, gradient_accumulation_steps: 8 },
  ])("accumulated rows count for the reference point of the step: %j", (input) => {
    expect(configAdvice(parseKtoConfig({ ...required, ...input }), large)).toEqual([]);
  });
});
