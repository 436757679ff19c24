/**
 * Prompts of `kto generate`, `kto chat`, `kto eval` and a run's samples: texts and chats from the command line or a file,
 * and their token ids, through the model's chat template where needed. Sampling is elsewhere.
 */
import { parseExactJson } from "../../engine/files/exact-json.ts";
import { type ChatTemplate, loadChatTemplate } from "../../engine/text/chat-template.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, DatasetError, errorMessage } from "../../errors.ts";
import { readTextFile } from "../terminal/files.ts";

/** Options that say how a prompt becomes a chat. */
export interface PromptOptions {
  readonly chat?: boolean | undefined;
  readonly system?: string | undefined;
  readonly chat_template_path?: string | undefined;
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>> | undefined;
}

/** A chat, with the other values that its row gives to the template. */
interface ChatPrompt {
  readonly messages: readonly Readonly<Record<string, unknown>>[];
  readonly tools?: readonly unknown[];
  /** The row's `chat_template_kwargs`; they override the command's. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** A text or a chat. */
export type Prompt = string | ChatPrompt;

/**
 * The prompts in order, those of the command line first.
 *
 * @throws FileError if the file cannot be read; DatasetError for a row without a prompt, naming file and line
 */
export async function readPrompts(options: {
  readonly prompt: readonly string[];
  readonly prompts_file?: string | undefined;
}): Promise<Prompt[]> {
  const file = options.prompts_file;
  if (file === undefined) return [...options.prompt];
  const text = await readTextFile(file, "prompts file");
  const rows = text.split(/\r?\n/).map((line, index) => ({ line, place: `${file}:${index + 1}` }));
  const written = rows.filter(({ line }) => line.trim() !== "");
  const fromFile = /\.jsonl$/i.test(file)
    ? written.map(({ line, place }) => promptOfRow(line, place))
    : written.map(({ line }) => line);
  if (fromFile.length === 0) throw new DatasetError(`${file} holds no prompt.`);
  return [...options.prompt, ...fromFile];
}

function promptOfRow(line: string, place: string): Prompt {
  let row: unknown;
  try {
    row = parseExactJson(line);
  } catch (error) {
    throw new DatasetError(`${place} is not valid JSON: ${errorMessage(error)}.`, { cause: error });
  }
  const fields = typeof row === "object" && row !== null ? (row as Record<string, unknown>) : {};
  const prompt = fields.messages ?? fields.prompt;
  if (typeof prompt === "string") return prompt;
  if (isChat(prompt)) {
    const { tools, chat_template_kwargs: variables } = fields;
    if (tools != null && !Array.isArray(tools)) throw new DatasetError(`${place}: "tools" is not a list.`);
    if (variables != null && !isObject(variables)) {
      throw new DatasetError(`${place}: "chat_template_kwargs" is not an object of variables.`);
    }
    return { messages: prompt, ...(tools ? { tools } : {}), ...(variables ? { variables } : {}) };
  }
  throw new DatasetError(
    `${place} has no "prompt" that is text, nor a list of chat messages as "messages" or "prompt".`,
  );
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isChat(value: unknown): value is readonly Readonly<Record<string, unknown>>[] {
  const isMessage = (one: unknown) => typeof one === "object" && one !== null && "role" in one;
  return Array.isArray(value) && value.length > 0 && value.every(isMessage);
}

/** A chat as a judge reads it. */
export function promptText(prompt: Prompt): string {
  if (typeof prompt === "string") return prompt;
  const { messages } = prompt;
  const [only, ...more] = messages;
  const content = (message: Readonly<Record<string, unknown>> | undefined) =>
    typeof message?.content === "string" ? message.content : JSON.stringify(message?.content);
  if (more.length === 0 && only?.role === "user") return content(only);
  return messages.map((message) => `${String(message.role)}: ${content(message)}`).join("\n");
}

/** Prompts to token ids: texts as they are, chats (and with `chat` texts too) through the model's chat template. */
export async function promptEncoder(
  prompts: readonly Prompt[],
  tokenizer: Tokenizer,
  folder: string,
  options: PromptOptions,
): Promise<(prompt: Prompt) => number[]> {
  const isChatting = options.chat === true || prompts.some((prompt) => typeof prompt !== "string");
  const template = isChatting ? await requireTemplate(folder, options.chat_template_path) : undefined;
  return (prompt) => {
    if (template === undefined || (typeof prompt === "string" && options.chat !== true)) {
      return tokenizer.encode(String(prompt));
    }
    const chat: ChatPrompt = typeof prompt === "string" ? { messages: [{ role: "user", content: prompt }] } : prompt;
    const system = options.system === undefined ? [] : [{ role: "system", content: options.system }];
    const text = template.render([...system, ...chat.messages], {
      addGenerationPrompt: true,
      ...(chat.tools ? { tools: chat.tools } : {}),
      variables: { ...options.chat_template_kwargs, ...chat.variables },
    });
    return tokenizer.encode(text, { addSpecialTokens: false });
  };
}

/** @throws ConfigError if neither the model's folder nor chat_template_path has one */
export async function requireTemplate(folder: string, templatePath: string | undefined): Promise<ChatTemplate> {
  const template = await loadChatTemplate(folder, templatePath === undefined ? {} : { templatePath });
  if (template !== undefined) return template;
  throw new ConfigError(
    `The model folder "${folder}" has no chat template; give one as chat_template_path, or let kto generate continue plain text.`,
  );
}
