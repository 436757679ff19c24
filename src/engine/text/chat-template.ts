/**
 * Chats to text by the Jinja template that comes with a model, with the variables that Hugging Face's transformers
 * gives to it; the language is jinja/'s. Not tokenizing, and not where a prompt ends (src/kto/data/chat.ts).
 */
import { ConfigError, ModelFormatError } from "../../errors.ts";
import { isJsonObject, type JsonObject, readJsonObject, readModelText } from "../files/json-file.ts";
import { TEMPLATES_FOLDER, templatesIn } from "../model/config/folder.ts";
import { platform } from "../platform/index.ts";
import { TemplateError } from "./jinja/errors.ts";
import { compileTemplate, type JinjaTemplate } from "./jinja/template.ts";

export interface RenderOptions {
  /** End with what opens the assistant's answer, where the template has such. */
  readonly addGenerationPrompt?: boolean;
  /** End with the last message's content, to be continued, rather than with what closes it. */
  readonly continueFinalMessage?: boolean;
  /** JSON schemas of the tools that may be called. */
  readonly tools?: readonly unknown[];
  /** The template's other variables: enable_thinking, documents, date_string, ... They go before special tokens. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

export interface ChatTemplate {
  /**
   * @throws ModelFormatError with the file and what the template itself said, if it refuses the messages
   * @throws TemplateLimitError if it needs more steps or text than a template may
   * @throws ConfigError if `variables` sets what is taken from the chat itself (messages, tools, ...)
   */
  render(messages: readonly Readonly<Record<string, unknown>>[], options?: RenderOptions): string;
  /** The file that it came from. */
  readonly source: string;
  /** Its text, or texts: whatever rendering depends on besides the options. */
  readonly text: string;
  /** It can ask for the date, so that what it renders may differ from day to day. */
  readonly usesDate: boolean;
}

/** Templates by name: "default", and "tool_use" for chats with tools. */
export type Templates = ReadonlyMap<string, string>;

const mainFile = "chat_template.jinja";

/** The variables that a caller cannot set through `variables`. */
const reserved = ["messages", "tools", "add_generation_prompt", "continue_final_message"];

/**
 * The chat template of a model folder: its chat_template.jinja (and additional_chat_templates/*.jinja), else
 * chat_template in tokenizer_config.json, else chat_template.json. Undefined if it has none.
 *
 * @param options.templatePath a .jinja or .json file, or a folder that holds a template as a model folder does; goes
 *   before the model folder's. Special tokens are the model folder's in any case.
 * @throws ModelFormatError naming the file that holds no template, or one that cannot be parsed
 */
export async function loadChatTemplate(
  folder: string,
  options: { readonly templatePath?: string | undefined } = {},
): Promise<ChatTemplate | undefined> {
  const { templatePath } = options;
  const found = templatePath === undefined ? await findInFolder(folder) : await findAtPath(templatePath);
  if (found === undefined) return undefined;
  const config = (await readJsonObject(platform.joinPath(folder, "tokenizer_config.json"))) ?? {};
  const map = (await readJsonObject(platform.joinPath(folder, "special_tokens_map.json"))) ?? {};
  return createChatTemplate(found.templates, specialTokens({ ...map, ...config }), found.source);
}

/** Whether a model folder has a chat template. What may be wrong with it is told where it is used. */
export async function hasChatTemplate(folder: string): Promise<boolean> {
  return (await findInFolder(folder).catch(() => undefined)) !== undefined;
}

/** The texts of a model folder's chat templates by name; undefined if it has none. */
export async function chatTemplateTexts(folder: string): Promise<Templates | undefined> {
  return (await findInFolder(folder))?.templates;
}

/**
 * Puts the template of `templatePath` into a model folder as its own, where it goes before what the folder had; other
 * additional templates there, which would go with another main one, are removed.
 *
 * @throws ModelFormatError if there is none
 */
export async function saveChatTemplate(templatePath: string, folder: string): Promise<void> {
  const { templates } = await findAtPath(templatePath);
  const others = platform.joinPath(folder, TEMPLATES_FOLDER);
  for (const name of await templatesIn(folder)) {
    if (!templates.has(name.slice(0, -".jinja".length))) await platform.removeFile(platform.joinPath(others, name));
  }
  for (const [name, text] of templates) {
    if (name !== "default") await platform.makeFolder(others);
    const path = name === "default" ? platform.joinPath(folder, mainFile) : platform.joinPath(others, `${name}.jinja`);
    await platform.writeFileAtomic(path, text);
  }
}

/**
 * A template from its text.
 *
 * @param templates the text, or texts by name ("default", "tool_use")
 * @param tokens special tokens by their names: bos_token, eos_token, ...
 * @param source the file, for messages
 */
export function createChatTemplate(templates: string | Templates, tokens: JsonObject, source: string): ChatTemplate {
  const texts: Templates = typeof templates === "string" ? new Map([["default", templates]]) : templates;
  const parsed = new Map([...texts].map(([name, text]) => [name, parse(text, source)]));
  const text = [...texts].map((entry) => JSON.stringify(entry)).join("\n");
  const select = (withTools: boolean): JinjaTemplate => {
    const template = (withTools ? parsed.get("tool_use") : undefined) ?? parsed.get("default");
    if (template) return template;
    throw new ModelFormatError(
      `${source} has chat templates named ${[...texts.keys()].join(", ")} but none named "default"; give the file of one as chat_template_path.`,
    );
  };
  const run = (
    messages: readonly JsonObject[],
    { addGenerationPrompt = false, tools, variables = {} }: RenderOptions,
  ) => {
    const name = reserved.find((one) => one in variables);
    if (name !== undefined) {
      throw new ConfigError(`The chat template's variable "${name}" is taken from the chat itself; leave it out.`);
    }
    const all = {
      documents: null,
      ...tokens,
      ...variables,
      messages,
      // Absent tools are None, not undefined: templates ask for both.
      tools: tools ?? null,
      add_generation_prompt: addGenerationPrompt,
    };
    const template = select(tools !== undefined);
    try {
      return template.render(all);
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error;
      throw new ModelFormatError(`${source}: the chat template stopped with "${error.message}".`, { cause: error });
    }
  };
  return {
    source,
    text,
    usesDate: text.includes("strftime_now"),
    render(messages, options = {}) {
      if (options.continueFinalMessage !== true) return run(messages, options);
      if (options.addGenerationPrompt === true) {
        throw new ModelFormatError("A chat cannot both continue its last message and open a new one.");
      }
      return untilMarker(run(withMarker(messages), options), source);
    },
  };
}

/** Stands behind the last message's content; its space is gone afterwards where the template trims contents. */
const marker = "\u{F0000}continue here\u{F0000} ";

function withMarker(messages: readonly JsonObject[]): JsonObject[] {
  const last = messages.at(-1);
  if (last === undefined) throw new ModelFormatError("A chat of no messages has no last one to continue.");
  return [...messages.slice(0, -1), { ...last, content: contentWithMarker(last.content) }];
}

/** Content is text, or a list of parts of which the last with text is continued. */
function contentWithMarker(content: unknown): unknown {
  if (!Array.isArray(content)) return `${typeof content === "string" ? content : ""}${marker}`;
  const parts = content as readonly JsonObject[];
  const index = parts.findLastIndex((part) => typeof part.text === "string");
  if (index === -1) return [...parts, { type: "text", text: marker }];
  return parts.map((part, i) => (i === index ? { ...part, text: `${String(part.text)}${marker}` } : part));
}

function untilMarker(text: string, source: string): string {
  const at = text.lastIndexOf(marker.trimEnd());
  if (at === -1) {
    throw new ModelFormatError(
      `${source}: the chat template leaves out the content of the last message, so that it cannot be continued.`,
    );
  }
  const before = text.slice(0, at);
  return text.startsWith(marker, at) ? before : before.trimEnd();
}

function parse(text: string, source: string): JinjaTemplate {
  try {
    return compileTemplate(text, source);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ModelFormatError(`${source}: the chat template cannot be parsed: ${error.message}.`, { cause: error });
  }
}

interface Found {
  readonly source: string;
  readonly templates: Templates;
}

async function findAtPath(path: string): Promise<Found> {
  const kind = await platform.exists(path);
  if (kind === undefined) {
    throw new ModelFormatError(`${path} does not exist; chat_template_path names a .jinja file or a folder with one.`);
  }
  const isJson = path.endsWith(".json");
  if (kind === "file" && !isJson) return { source: path, templates: new Map([["default", await readModelText(path)]]) };
  const found = await (kind === "folder" ? findInFolder(path) : findInJson(path));
  if (found) return found;
  throw new ModelFormatError(`${path} holds no chat template; chat_template_path names a .jinja file or a folder.`);
}

async function findInFolder(folder: string): Promise<Found | undefined> {
  const source = platform.joinPath(folder, mainFile);
  if ((await platform.exists(source)) === "file") {
    const templates = new Map(await additionalTemplates(folder));
    return { source, templates: templates.set("default", await readModelText(source)) };
  }
  return (
    (await findInJson(platform.joinPath(folder, "tokenizer_config.json"))) ??
    (await findInJson(platform.joinPath(folder, "chat_template.json")))
  );
}

async function additionalTemplates(folder: string): Promise<[name: string, text: string][]> {
  return await Promise.all(
    (await templatesIn(folder)).map(async (name): Promise<[string, string]> => {
      const path = platform.joinPath(folder, TEMPLATES_FOLDER, name);
      return [name.slice(0, -".jinja".length), await readModelText(path)];
    }),
  );
}

/** The key chat_template of a JSON file: a text, or a list of objects with name and template. */
async function findInJson(source: string): Promise<Found | undefined> {
  const template = (await readJsonObject(source))?.chat_template;
  if (template === undefined || template === null) return undefined;
  if (typeof template === "string") return { source, templates: new Map([["default", template]]) };
  const entries = Array.isArray(template) ? template : [];
  const templates = new Map<string, string>();
  for (const entry of entries as readonly unknown[]) {
    if (!isJsonObject(entry) || typeof entry.name !== "string" || typeof entry.template !== "string") continue;
    templates.set(entry.name, entry.template);
  }
  if (templates.size > 0 && templates.size === entries.length) return { source, templates };
  throw new ModelFormatError(
    `${source}: chat_template is neither a text nor a list of {"name": ..., "template": ...} with a text in each.`,
  );
}

/** The names ending in _token, as their texts, and the list of additional ones. A null is a token that is not there. */
function specialTokens(config: JsonObject): JsonObject {
  const textOf = (token: unknown) => (isJsonObject(token) ? token.content : token);
  const tokens: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(config)) {
    if (name.endsWith("_token") && typeof textOf(value) === "string") tokens[name] = textOf(value);
    else if (name === "additional_special_tokens" && Array.isArray(value)) tokens[name] = value.map(textOf);
  }
  return tokens;
}
