/**
 * A Modelfile, from which Ollama makes a model of a GGUF file: where the file is, the model's sampling defaults, and
 * the chat template in Ollama's language (Go's templates). A Jinja template is translated by trying it: the texts
 * around the messages of one chat are put into a Go template, which is kept only if it gives the same text for other
 * chats too. Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md
 */
import { ModelFormatError } from "../../../errors.ts";
import type { ChatTemplate } from "../../text/chat-template.ts";
import type { readGenerationDefaults } from "../config/generation-config.ts";

/** What Ollama is told of a model. */
export interface ModelfileFacts {
  /** The GGUF file beside the Modelfile: of the model, or of the base where there is an adapter. */
  readonly model: string;
  readonly adapter?: string | undefined;
  readonly template: string | undefined;
  readonly sampling: Awaited<ReturnType<typeof readGenerationDefaults>>;
  readonly contextLength: number;
  /** Comments before everything else, a line each. */
  readonly notes: readonly string[];
}

/** What Ollama's reader drops wherever it stands (Go's strconv.IsPrint, parser/parser.go). */
const DROPPED = /[^\p{L}\p{M}\p{N}\p{P}\p{S} \t\r\n]/u;

/** Whether a Modelfile can name a file: a line break or a character that is not printed would be lost. */
export function isNameForOllama(file: string): boolean {
  return !DROPPED.test(file) && !/[\t\r\n]/.test(file) && file === file.trim();
}

/** Ollama's own context, unless the Modelfile says otherwise. */
const USUAL_CONTEXT = 4096;

export function modelfile({ model, adapter, template, sampling, contextLength, notes }: ModelfileFacts): string {
  const { doSample, temperature, topK, topP, minP, repetitionPenalty } = sampling;
  const parameters = {
    temperature: doSample === false ? 0 : temperature,
    top_k: topK,
    top_p: topP,
    min_p: minP,
    repeat_penalty: repetitionPenalty,
    num_ctx: contextLength < USUAL_CONTEXT ? contextLength : undefined,
  };
  return [
    ...notes.map((note) => `# ${note.replace(/[\r\n]+/g, " ")}`),
    `FROM ./${model}`,
    ...(adapter === undefined ? [] : [`ADAPTER ./${adapter}`]),
    ...(template === undefined ? [] : [`TEMPLATE """${template}"""`]),
    ...Object.entries(parameters).flatMap(([name, value]) =>
      value === undefined ? [] : [`PARAMETER ${name} ${value}`],
    ),
    "",
  ].join("\n");
}

interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** The texts around the messages of a chat; of these Ollama's template is made. */
interface Frame {
  readonly beforeSystem: string;
  readonly afterSystem: string;
  /** Instead of a system message. */
  readonly withoutSystem: string;
  readonly beforeUser: string;
  readonly afterUser: string;
  readonly beforeAssistant: string;
  readonly afterAssistant: string;
  /** At the end, where the assistant's answer begins. */
  readonly opening: string;
}

/** Letters that no template changes, trims or looks for. */
const message = (role: Message["role"], name: string): Message => ({ role, content: `Kto${name}Kto` });
const SYSTEM = message("system", "Rules");
const CHAT = [message("user", "One"), message("assistant", "Two"), message("user", "Three")];

/** Chats for which the translation must be right. */
const TRIED: readonly (readonly Message[])[] = [
  CHAT.slice(0, 1),
  [SYSTEM, ...CHAT.slice(0, 1)],
  CHAT,
  [SYSTEM, ...CHAT, message("assistant", "Four"), message("user", "Five")],
];

/**
 * A chat template in Ollama's language; undefined where it cannot be one that puts fixed texts around messages.
 *
 * @param bos the text of the beginning-of-sequence token, where llama.cpp puts that before a text itself
 */
export function ollamaTemplate(template: ChatTemplate, bos: string | undefined): string | undefined {
  if (template.usesDate) return undefined;
  const render = (messages: readonly Message[]): string | undefined => {
    try {
      const text = template.render(
        messages.map((one) => ({ ...one })),
        { addGenerationPrompt: true },
      );
      return bos !== undefined && text.startsWith(bos) ? text.slice(bos.length) : text;
    } catch (error) {
      if (error instanceof ModelFormatError) return undefined;
      throw error;
    }
  };
  const frame = frameOf(render([SYSTEM, ...CHAT]), render(CHAT));
  if (frame === undefined) return undefined;
  if (TRIED.some((messages) => render(messages) !== framed(messages, frame))) return undefined;
  return Object.values(frame).some(isChangedByOllama) ? undefined : goTemplate(frame);
}

/** Whether a text would end the Modelfile's quotation, open an action of Go's or lose a character. */
function isChangedByOllama(text: string): boolean {
  return text.includes('"""') || text.includes("{{") || text.endsWith("{") || DROPPED.test(text);
}

/** The texts around the messages of a chat with and without a system message. */
function frameOf(withSystem: string | undefined, without: string | undefined): Frame | undefined {
  const [beforeSystem, toUser, toAssistant, toUserAgain, end] = between(withSystem, [SYSTEM, ...CHAT]) ?? [];
  const [start] = between(without, CHAT) ?? [];
  if (beforeSystem === undefined || toUser === undefined || toAssistant === undefined) return undefined;
  if (toUserAgain === undefined || end === undefined || start === undefined) return undefined;
  // Which part of a text between two messages belongs to which shows where it stands at other places too.
  const beforeUser = commonEnd(commonEnd(toUser, toUserAgain), start);
  const afterUser = commonStart(toAssistant, end);
  return {
    beforeSystem,
    afterSystem: toUser.slice(0, toUser.length - beforeUser.length),
    withoutSystem: start.slice(0, start.length - beforeUser.length),
    beforeUser,
    afterUser,
    beforeAssistant: toAssistant.slice(afterUser.length),
    afterAssistant: toUserAgain.slice(0, toUserAgain.length - beforeUser.length),
    opening: end.slice(afterUser.length),
  };
}

/** What stands before, between and after the messages; undefined unless each is there once, in order. */
function between(text: string | undefined, messages: readonly Message[]): string[] | undefined {
  let rest = text;
  const pieces: string[] = [];
  for (const { content } of messages) {
    const parts: string[] | undefined = rest?.split(content);
    if (parts?.length !== 2) return undefined;
    const [before = "", after = ""] = parts;
    pieces.push(before);
    rest = after;
  }
  return rest === undefined ? undefined : [...pieces, rest];
}

/** What the Go template gives for a chat. */
function framed(messages: readonly Message[], frame: Frame): string {
  const system = messages.find(({ role }) => role === "system");
  const start = system ? frame.beforeSystem + system.content + frame.afterSystem : frame.withoutSystem;
  const turns = messages.map(({ role, content }) => {
    if (role === "user") return frame.beforeUser + content + frame.afterUser;
    return role === "assistant" ? frame.beforeAssistant + content + frame.afterAssistant : "";
  });
  return start + turns.join("") + frame.opening;
}

function goTemplate(frame: Frame): string {
  const system = `{{ if .System }}${frame.beforeSystem}{{ .System }}${frame.afterSystem}{{ else }}${frame.withoutSystem}{{ end }}`;
  const user = `{{ if eq .Role "user" }}${frame.beforeUser}{{ .Content }}${frame.afterUser}`;
  const assistant = `{{ else if eq .Role "assistant" }}${frame.beforeAssistant}{{ .Content }}${frame.afterAssistant}`;
  return `${system}{{ range .Messages }}${user}${assistant}{{ end }}{{ end }}${frame.opening}`;
}

function commonStart(one: string, other: string): string {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length++;
  return one.slice(0, length);
}

function commonEnd(one: string, other: string): string {
  let length = 0;
  while (length < one.length && length < other.length && one.at(-1 - length) === other.at(-1 - length)) length++;
  return one.slice(one.length - length);
}
