/**
 * What is done to rows of text before they are read: markup put around them, or their texts made a chat's messages.
 * Other trainers do so for every data set; here it is asked for. Rows of messages and of token ids stay as they are.
 */
import { ConfigError, DatasetError } from "../../errors.ts";
import { described } from "./records.ts";
import { type Fields, placeOf, type RowSource } from "./types.ts";

/** The options that say what rows of text become. */
export interface RowForm {
  /** The prompt is a user's message and the completion the assistant's; the chat template makes text of them. */
  readonly textAsChat?: boolean | undefined;
  /** Markup around the prompt: {prompt}, and {system} for the row's system prompt. Braces are doubled, as in Python. */
  readonly promptFormat?: string | undefined;
  /** Markup around the system prompt: {system}. Without a system prompt there is none of it. */
  readonly systemFormat?: string | undefined;
  /** Markup around the completion: {completion}. */
  readonly completionFormat?: string | undefined;
}

/** Texts that were judged. */
const answers = ["completion", "chosen", "rejected"];

/**
 * Returns a function that gives a record's fields their form; undefined where nothing is asked for.
 *
 * @throws ConfigError for a format with a name that it cannot have, or for two forms at once
 */
export function rowFormer(form: RowForm): ((fields: Fields, source: RowSource) => Fields) | undefined {
  const { textAsChat = false, promptFormat, systemFormat, completionFormat } = form;
  const formats = { prompt_format: promptFormat, system_format: systemFormat, completion_format: completionFormat };
  const given = Object.entries(formats).find(([, format]) => format !== undefined);
  if (textAsChat && given !== undefined) {
    throw new ConfigError(
      `options "text_as_chat" and "${given[0]}" both say what rows of text become: the chat template writes markup, so keep one.`,
    );
  }
  if (textAsChat) return asChat;
  if (given === undefined) return undefined;
  const prompt = formatter("prompt_format", promptFormat ?? "{prompt}", ["prompt", "system"]);
  const system = formatter("system_format", systemFormat ?? "{system}", ["system"]);
  const completion = formatter("completion_format", completionFormat ?? "{completion}", ["completion"]);
  return (fields, source) => {
    const made: Record<string, unknown> = { ...fields };
    if (typeof fields.prompt === "string") {
      const written = textOf(fields, "system", source);
      made.prompt = prompt({ prompt: fields.prompt, system: written === "" ? "" : system({ system: written }) });
      if (promptFormat?.includes("{system}")) delete made.system;
    }
    for (const name of answers) {
      if (typeof fields[name] === "string") made[name] = completion({ completion: fields[name] });
    }
    return made;
  };
}

/** A text prompt, with LLaMA-Factory's "query" below it and the system prompt before it, and its answers as messages. */
function asChat(fields: Fields, source: RowSource): Fields {
  if (typeof fields.prompt !== "string") return fields;
  const { system: _, query: __, ...rest } = fields;
  const system = textOf(fields, "system", source);
  const user = [fields.prompt, textOf(fields, "query", source)].filter((text) => text !== "").join("\n");
  const made: Record<string, unknown> = {
    ...rest,
    prompt: [...(system === "" ? [] : [{ role: "system", content: system }]), { role: "user", content: user }],
  };
  for (const name of answers) {
    if (typeof fields[name] === "string") made[name] = [{ role: "assistant", content: fields[name] }];
  }
  return made;
}

/** A field that need not be there. */
function textOf(fields: Fields, name: string, source: RowSource): string {
  const value = fields[name] ?? "";
  if (typeof value === "string") return value;
  throw new DatasetError(
    `${placeOf(source)}: "${name}" is ${described(value)}, not a text; give a text, or leave it out (column_mapping).`,
  );
}

/** Puts texts into a format as Python's str.format does with names. */
function formatter(
  option: string,
  format: string,
  names: readonly string[],
): (texts: Readonly<Record<string, string>>) => string {
  const parts = format.split(/(\{\{|\}\}|\{[^{}]*\}|[{}])/);
  const bad = parts.find((part, i) => i % 2 === 1 && !["{{", "}}", ...names.map((name) => `{${name}}`)].includes(part));
  const own = names[0] ?? "";
  if (bad !== undefined || !parts.includes(`{${own}}`)) {
    const fault = bad === undefined ? `lacks {${own}}` : `has "${bad}"`;
    throw new ConfigError(
      `option "${option}" ${fault}: write ${names.map((name) => `{${name}}`).join(" and ")} where the row's texts go, and other braces twice.`,
    );
  }
  return (texts) =>
    parts
      .map((part, i) =>
        i % 2 === 0 ? part : part === "{{" || part === "}}" ? part.charAt(0) : (texts[part.slice(1, -1)] ?? ""),
      )
      .join("");
}
