/**
 * The model card of a result: README.md with the front matter that the Hugging Face hub reads, what the model was made
 * of and how, its numbers and curves, and the citation of the method. Names files and folders by their last part only,
 * since a card is published. A card that somebody changed is kept.
 */
import { stringify } from "yaml";
import { writeOwnText } from "../../engine/files/own-text.ts";
import { platform } from "../../engine/platform/index.ts";
import { type Figure, linePlots } from "./svg.ts";

export const CARD_FILE = "README.md";
export const CURVES_FILE = "training.svg";

/** A name or path as the user gave it. */
export interface NamedSource {
  readonly name: string;
  /** A folder or file of this machine, and not a name on the hub. */
  readonly isLocal: boolean;
}

/** What a card tells. */
export interface CardFacts {
  readonly title: string;
  readonly method: "kto" | "sft" | "merge";
  readonly base: NamedSource;
  /** The base model's license, as its own card names it. */
  readonly license?: string | undefined;
  /** The folder holds an adapter and no whole model. */
  readonly isAdapter: boolean;
  readonly datasets: readonly NamedSource[];
  /** One line about the rows. */
  readonly data?: string | undefined;
  /** Options of the training by name; those that are undefined are left out. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Lines of the metrics. */
  readonly log?: readonly Readonly<Record<string, number | null>>[];
  /** What wrote it and where it ran, a line each. */
  readonly made: readonly string[];
}

/**
 * Writes README.md, and the curves that it shows, into a folder.
 *
 * @returns whether the card was written: not where one lies there that somebody changed, or another program wrote
 * @throws FileError
 */
export async function writeModelCard(folder: string, facts: CardFacts): Promise<boolean> {
  const figure = curvesOf(facts);
  if (figure !== undefined) {
    await platform.writeFileAtomic(platform.joinPath(folder, CURVES_FILE), linePlots(figure));
  }
  return await writeOwnText(platform.joinPath(folder, CARD_FILE), modelCard(facts), ["<!-- ", " -->"]);
}

/** The text of the card. */
export function modelCard(facts: CardFacts): string {
  const { title, base, isAdapter, method, made } = facts;
  const sections = [
    `# ${title}`,
    `${introduction(facts)}.`,
    `## Use\n\n${usage(facts)}`,
    ...(method === "merge" ? [] : [`## Training\n\n${training(facts)}`]),
    ...results(facts),
    ...(method === "kto" ? [`## Citation\n\n${fenced("bibtex", KTO_CITATION)}`] : []),
    made.join("  \n"),
  ];
  return `${frontMatter(facts)}\n${sections.filter((section) => section !== "").join("\n\n")}\n`;

  function introduction({ datasets }: CardFacts): string {
    const what = isAdapter ? "A LoRA adapter for" : "A version of";
    const of = `${what} ${link(base, "")}`;
    if (method === "merge") return `${of} with a LoRA adapter merged into it`;
    const on = datasets.length === 0 ? "" : ` on ${datasets.map((one) => link(one, "datasets/")).join(", ")}`;
    return method === "kto"
      ? `${of}, aligned with thumbs up and down${on} by KTO (Kahneman-Tversky Optimization)`
      : `${of}, fine-tuned on completions${on}`;
  }
}

/** What the hub reads. It takes names on the hub only. */
function frontMatter({ base, license, isAdapter, datasets, method, title }: CardFacts): string {
  const published = datasets.filter(({ isLocal }) => !isLocal).map(({ name }) => name);
  const front = {
    ...(base.isLocal ? {} : { base_model: base.name, base_model_relation: isAdapter ? "adapter" : "finetune" }),
    library_name: isAdapter ? "peft" : "transformers",
    pipeline_tag: "text-generation",
    model_name: title,
    ...(license === undefined ? {} : { license }),
    ...(published.length === 0 ? {} : { datasets: published }),
    tags: [...(method === "merge" ? [] : [method]), ...(isAdapter ? ["lora"] : []), "kto-webgpu"],
  };
  return `---\n${stringify(front)}---\n`;
}

function usage({ isAdapter, base, title }: CardFacts): string {
  const name = base.isLocal ? "path/to/the/base" : base.name;
  const python = isAdapter
    ? [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        `base = AutoModelForCausalLM.from_pretrained("${name}")`,
        `model = PeftModel.from_pretrained(base, "path/to/${title}")`,
        `tokenizer = AutoTokenizer.from_pretrained("${name}")`,
      ]
    : [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        `model = AutoModelForCausalLM.from_pretrained("path/to/${title}")`,
        `tokenizer = AutoTokenizer.from_pretrained("path/to/${title}")`,
      ];
  return `${fenced("python", python.join("\n"))}\n\nWithout Python, on any GPU: \`npx kto-webgpu chat --model_name_or_path path/to/${title}\`.`;
}

function training({ data, settings = {} }: CardFacts): string {
  const rows = Object.entries(settings)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => [`\`${name}\``, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  return [...(data === undefined ? [] : [`Data: ${data}.`]), table(["setting", "value"], rows)].join("\n\n");
}

/** The last metrics of the training and of the evaluation. */
function results(facts: CardFacts): string[] {
  const { log = [] } = facts;
  const last = log.findLast((line) => "loss" in line);
  const evaluated = log.findLast((line) => "eval_loss" in line);
  const numbers = Object.entries({ ...last, ...evaluated }).filter(
    ([name, value]) => typeof value === "number" && SHOWN.test(name),
  );
  if (numbers.length === 0) return [];
  const rows = numbers.map(([name, value]) => [`\`${name}\``, String(Number((value ?? 0).toPrecision(4)))]);
  const at = [
    last && `of the last window, ending at step ${last.step}`,
    evaluated && `of the evaluation at step ${evaluated.step}`,
  ];
  const note = `Numbers ${at.filter(Boolean).join(" and ")}; docs/metrics.md of kto-webgpu says what they mean.`;
  const picture = curvesOf(facts) === undefined ? [] : [`![Curves of the training](${CURVES_FILE})`];
  return [[`## Results`, note, table(["metric", "value"], rows), ...picture].join("\n\n")];
}

const SHOWN = /^(eval_)?(loss|kl|rewards\/(chosen|rejected|margins|accuracies)|mean_token_accuracy|win_rate)$/;

/** The curves of a run; undefined where there is nothing to draw. */
function curvesOf({ log = [], method, title }: CardFacts): Figure | undefined {
  const series = (name: string, shown = name) => ({
    name: shown,
    points: log.flatMap((line) => {
      const [x, y] = [line.step, line[name]];
      return typeof x === "number" && typeof y === "number" ? [[x, y] as const] : [];
    }),
  });
  const loss = { title: "loss", series: [series("loss", "training"), series("eval_loss", "evaluation")] };
  const panels =
    method === "kto"
      ? [
          loss,
          {
            title: "rewards",
            series: [series("rewards/chosen", "thumbs up"), series("rewards/rejected", "thumbs down")],
          },
          {
            title: "margin",
            series: [series("rewards/margins", "training"), series("eval_rewards/margins", "evaluation")],
          },
        ]
      : [loss];
  const drawn = panels
    .map((panel) => ({ ...panel, series: panel.series.filter(({ points }) => points.length > 0) }))
    .filter((panel) => panel.series.some(({ points }) => points.length > 1));
  return drawn.length === 0 ? undefined : { title, xLabel: "update", panels: drawn };
}

function link({ name, isLocal }: NamedSource, kind: "" | "datasets/"): string {
  return isLocal ? platform.baseName(name) : `[${name}](https://huggingface.co/${kind}${name})`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

function fenced(language: string, text: string): string {
  return `\`\`\`${language}\n${text}\n\`\`\``;
}

const KTO_CITATION = `@misc{ethayarajh2024kto,
  title = {{KTO}: Model Alignment as Prospect Theoretic Optimization},
  author = {Kawin Ethayarajh and Winnie Xu and Niklas Muennighoff and Dan Jurafsky and Douwe Kiela},
  year = {2024},
  eprint = {2402.01306},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG},
}`;
