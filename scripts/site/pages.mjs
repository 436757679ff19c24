/**
 * The pages of the site, in the order in which they are read. A page of docs/ that is not listed here fails
 * test/site.test.ts, and so does one that is listed and not there, but for those that `coming` names: they appear when
 * their file does.
 */

/** @typedef {{ text: string, items: readonly (readonly [title: string, file: string])[] }} Group */

/** @type {readonly Group[]} */
export const groups = [
  {
    text: "Start",
    items: [
      ["First run", "first-run.md"],
      ["Guide", "guide.md"],
      ["Thumbs from your chat program", "thumbs.md"],
      ["Troubleshooting", "troubleshooting.md"],
    ],
  },
  {
    text: "Train",
    items: [
      ["Choosing beta, weights, learning rate", "choosing.md"],
      ["SFT, then KTO", "sft.md"],
      ["LoRA and 4 bits on a small GPU", "small-gpu.md"],
      ["LoRA", "lora.md"],
      ["Quantised bases", "quantised.md"],
      ["Several GPUs", "scale.md"],
      ["Models", "models.md"],
      ["From TRL, LLaMA-Factory, axolotl", "migrating.md"],
    ],
  },
  {
    text: "Look",
    items: [
      ["Reading the curves", "curves.md"],
      ["Evaluation and judges", "evaluation.md"],
      ["Dashboard", "dashboard.md"],
      ["The imbalance study", "imbalance.md"],
    ],
  },
  {
    text: "Run",
    items: [
      ["Memory", "memory.md"],
      ["What the limits of WebGPU mean", "webgpu-limits.md"],
      ["llama.cpp, Ollama, hub", "export.md"],
      ["In a browser", "browser.md"],
      ["The package", "package.md"],
      ["Measuring a GPU", "gpu-report.md"],
    ],
  },
  {
    text: "Reference",
    items: [
      ["How options are written", "options.md"],
      ["Every option", "reference/options.md"],
      ["Metrics", "metrics.md"],
      ["Files", "reference/files.md"],
      ["Exit codes", "reference/exit-codes.md"],
    ],
  },
  {
    text: "Inside",
    items: [
      ["Design", "design/README.md"],
      ["Method", "design/method.md"],
      ["Kernels", "design/kernels.md"],
      ["Engine", "design/engine.md"],
      ["Adding a kernel", "design/adding-a-kernel.md"],
      ["Adding a family", "design/adding-a-family.md"],
      ["Finding your way", "finding-your-way.md"],
    ],
  },
];

/** Pages that other work brings. */
export const coming = ["scale.md", "dashboard.md", "browser.md"];

/** The address of a page: README.md is the page of its folder. */
export function addressOf(file) {
  return `/${file.replace(/\.md$/, "").replace(/(^|\/)README$/, "$1")}`;
}
