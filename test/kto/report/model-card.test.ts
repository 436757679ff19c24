/** Model cards: front matter as the hub reads it, numbers, curves, and cards that people changed. */
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { type CardFacts, modelCard, writeModelCard } from "../../../src/kto/report/model-card.ts";
import { temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();

const facts: CardFacts = {
  title: "stories-kto",
  method: "kto",
  base: { name: "ada/stories", isLocal: false },
  license: "mit",
  isAdapter: false,
  datasets: [
    { name: "ada/thumbs", isLocal: false },
    { name: "/home/ada/private/feedback.jsonl", isLocal: true },
  ],
  data: "8 rows, 4 desirable (weight 1), 4 undesirable (weight 1)",
  settings: { beta: 0.1, learning_rate: 5e-6, lora_target_modules: ["a", "b"], max_steps: undefined },
  log: [
    { step: 1, loss: 0.5, "rewards/chosen": 0.1, "rewards/rejected": -0.1, "rewards/margins": 0.2, grad_norm: 1 },
    { step: 1, eval_loss: 0.49, "eval_rewards/margins": 0.25 },
    { step: 2, loss: 0.45678, "rewards/chosen": 0.2, "rewards/rejected": null, "rewards/margins": 0.4, grad_norm: 1 },
  ],
  made: ["Made with kto-webgpu 0.1.0.", "Trained on a GPU."],
};

const front = (card: string) => parse(/^---\n([\s\S]*?)\n---\n/.exec(card)?.[1] ?? "") as Record<string, unknown>;

describe("the front matter", () => {
  test("names what the hub knows, and nothing of this machine", () => {
    expect(front(modelCard(facts))).toEqual({
      base_model: "ada/stories",
      base_model_relation: "finetune",
      library_name: "transformers",
      pipeline_tag: "text-generation",
      model_name: "stories-kto",
      license: "mit",
      datasets: ["ada/thumbs"],
      tags: ["kto", "kto-webgpu"],
    });
    expect(modelCard(facts)).not.toContain("/home/ada");
    expect(modelCard(facts)).toContain("feedback.jsonl");
  });

  test("of an adapter, of a fine-tuned and of a merged model", () => {
    const adapter = front(modelCard({ ...facts, isAdapter: true }));
    expect(adapter).toMatchObject({
      library_name: "peft",
      base_model_relation: "adapter",
      tags: ["kto", "lora", "kto-webgpu"],
    });
    const local = { ...facts, base: { name: "./base", isLocal: true }, datasets: [], license: undefined };
    expect(front(modelCard({ ...local, method: "sft" }))).toEqual({
      library_name: "transformers",
      pipeline_tag: "text-generation",
      model_name: "stories-kto",
      tags: ["sft", "kto-webgpu"],
    });
    const merged = modelCard({ ...local, method: "merge", log: [] });
    expect(front(merged).tags).toEqual(["kto-webgpu"]);
    expect(merged).toContain("A version of base with a LoRA adapter merged into it.");
    expect(merged).not.toContain("## Training");
  });
});

test("the card tells data, settings, last numbers, curves and the citation of the method", () => {
  const card = modelCard(facts);
  expect(card).toContain(
    "A version of [ada/stories](https://huggingface.co/ada/stories), aligned with thumbs up and down on [ada/thumbs](https://huggingface.co/datasets/ada/thumbs), feedback.jsonl by KTO",
  );
  expect(card).toContain("Data: 8 rows, 4 desirable (weight 1), 4 undesirable (weight 1).");
  expect(card).toContain('| `learning_rate` | 0.000005 |\n| `lora_target_modules` | ["a","b"] |\n');
  expect(card).not.toContain("max_steps");
  expect(card).toContain("| `loss` | 0.4568 |");
  expect(card).toContain("| `eval_rewards/margins` | 0.25 |");
  expect(card).not.toContain("grad_norm");
  expect(card).toContain("![Curves of the training](training.svg)");
  expect(card).toContain("eprint = {2402.01306}");
  expect(modelCard({ ...facts, method: "sft" })).not.toContain("@misc");
  expect(modelCard({ ...facts, log: [] })).not.toContain("## Results");
});

describe("a card in a folder", () => {
  const fresh = () => mkdtempSync(join(folder, "c-"));

  test("is written with its curves, and again while nobody has changed it", async () => {
    const into = fresh();
    expect(await writeModelCard(into, facts)).toBe(true);
    expect(readFileSync(join(into, "training.svg"), "utf8")).toContain("thumbs up");
    expect(await writeModelCard(into, { ...facts, title: "other" })).toBe(true);
    expect(readFileSync(join(into, "README.md"), "utf8")).toContain("# other\n");
  });

  test("is kept once it was changed, and so is one of another program", async () => {
    const into = fresh();
    const path = join(into, "README.md");
    await writeModelCard(into, facts);
    const changed = readFileSync(path, "utf8").replace("## Use", "## How to use");
    for (const text of [changed, "# My model\n"]) {
      writeFileSync(path, text);
      expect(await writeModelCard(into, facts)).toBe(false);
      expect(readFileSync(path, "utf8")).toBe(text);
    }
  });

  test("has no picture where there is nothing to draw", async () => {
    const into = fresh();
    await writeModelCard(into, { ...facts, log: facts.log?.slice(0, 1) ?? [] });
    expect(existsSync(join(into, "training.svg"))).toBe(false);
    expect(readFileSync(join(into, "README.md"), "utf8")).not.toContain("training.svg");
  });
});
