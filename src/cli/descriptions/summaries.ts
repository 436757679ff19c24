/**
 * The commands and one line about each, in the order of the help text. Apart from their descriptions, so that the list
 * of commands waits for no table of options.
 */
export const summaries = {
  train: "align a model with thumbs-up/thumbs-down feedback (KTO)",
  sft: "fine-tune a model on completions to be imitated, the stage before train",
  eval: "losses and rewards on feedback, win rate by a judge",
  generate: "sample from a model",
  chat: "talk with a model",
  logps: "log-probability and log-ratio of every row",
  data: "show what a feedback file holds, or convert it",
  gradcheck: "compare the GPU's gradients with the float64 model",
  merge: "make a whole model of a base model and a LoRA adapter",
  export: "write a model or an adapter as GGUF, for llama.cpp and Ollama",
  dashboard: "show runs, finished and running ones, on a page of this machine",
  init: "write a configuration file for a model, feedback and this adapter",
  plan: "how the time of an update grows with ranks and link",
  bench: "measure kernels and whole updates on this adapter",
  doctor: "what this machine offers, and what would be faster",
  completion: "print a shell's completion of commands, options and values",
} as const;

export type CommandName = keyof typeof summaries;
