/**
 * Chat templates by the names that other trainers have for them, each as what it writes for one question and answer, so
 * that a model's own template can be compared with the one that a name means. Nothing is rendered with them.
 */
import { ConfigError } from "../errors.ts";

const question = "What is it?";
const answer = "A test.";
/** A special token of the tokenizer's, such as </s>. */
const token = /<[^<>\s]+>/;

const chatml = ["<|im_start|>user\n", question, "<|im_end|>\n<|im_start|>assistant\n", answer, "<|im_end|>\n"];
const withSystem = (system: string) => [`<|im_start|>system\n${system}<|im_end|>\n`, ...chatml];
const header = (role: string) => `<|start_header_id|>${role}<|end_header_id|>\n\n`;
const qwen = withSystem("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.");

/** What LLaMA-Factory's and axolotl's templates write, in parts; a beginning-of-sequence token may precede. */
const written = {
  chatml,
  llama2: ["[INST] ", question, " [/INST]", answer, token],
  llama3: [header("user"), question, "<|eot_id|>", header("assistant"), answer, "<|eot_id|>"],
  mistral: ["[INST] ", question, "[/INST] ", answer, token],
  qwen,
  qwen_25: qwen,
  qwen3: [...chatml.slice(0, 3), "<think>\n\n</think>\n\n", ...chatml.slice(3)],
  qwen3_nothink: chatml,
  smollm: chatml,
  smollm2: withSystem("You are a helpful AI assistant named SmolLM, trained by Hugging Face."),
} as const satisfies Readonly<Record<string, readonly (string | RegExp)[]>>;

export type KnownTemplateName = keyof typeof written;

export const knownTemplateNames = Object.keys(written) as [KnownTemplateName, ...KnownTemplateName[]];

/** What is needed of a model's chat template (`text/chat-template.ts`). */
interface OwnTemplate {
  readonly source: string;
  render(
    messages: readonly Readonly<Record<string, unknown>>[],
    options: { readonly variables: Readonly<Record<string, unknown>> },
  ): string;
}

/**
 * Compares a model's own template with the one that a name means.
 *
 * @param variables of the template (chat_template_kwargs)
 * @throws ConfigError that quotes both texts where they differ
 */
export function checkTemplateName(
  template: OwnTemplate,
  name: KnownTemplateName,
  variables: Readonly<Record<string, unknown>> = {},
): void {
  const chat = [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ];
  const own = template.render(chat, { variables });
  const parts: readonly (string | RegExp)[] = written[name];
  const escaped = parts.map((part) =>
    typeof part === "string" ? part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") : part.source,
  );
  if (new RegExp(`^(?:${token.source})?${escaped.join("")}$`).test(own)) return;
  const meant = parts.map((part) => (typeof part === "string" ? part : "</s>")).join("");
  throw new ConfigError(
    `the chat template "${name}" writes ${JSON.stringify(meant)}, but the model's own (${template.source}) writes ${JSON.stringify(own)}: leave the name out to train with the model's own, or give the other one as chat_template_path.`,
  );
}
