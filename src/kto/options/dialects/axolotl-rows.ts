/**
 * axolotl's kinds of rows for KTO: which columns a row has and the markup that is put around their text, without the
 * model's chat template. A kind of the user's own says the same itself.
 */
import { shown } from "../../../errors.ts";
import { type OptionsInFile, Refused } from "./dialect.ts";

/** The markup of a family of models. */
interface Markup {
  readonly system: string;
  readonly prompt: string;
  readonly completion: string;
}

const turn = (open: string, close: string, end: string): Markup => {
  const opened = (role: string) => `${open}${role}${close}`;
  const answer = opened("assistant");
  return {
    system: `${opened("system")}{system}${end}`,
    prompt: `{system}${opened("user")}{prompt}${end}${answer}`,
    completion: "{completion}",
  };
};

const chatml = { ...turn("<|im_start|>", "\n", "<|im_end|>\n"), completion: "{completion}<|im_end|>" };
const llama3 = {
  ...turn("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"),
  completion: "{completion}<|eot_id|>",
};
const markups: Readonly<Record<string, Markup>> = { chatml, llama3 };

/** The column of the prompt, by the second half of a kind's name. */
const promptColumns: Readonly<Record<string, string>> = {
  argilla: "instruction",
  intel: "question",
  prompt_pairs: "prompt",
  ultra: "prompt",
};

/** What a data set's `type` says of its rows, as this project's options. */
export function rowForm(type: unknown): OptionsInFile | Refused {
  if (type === undefined || type === null || type === "") return {};
  if (typeof type === "object") return ownForm(type as OptionsInFile);
  const [family = "", kind = ""] = String(type).split(".");
  const markup = markups[family];
  const column = promptColumns[kind];
  if (kind === "argilla_chat") {
    return new Refused(
      `has the type ${shown(type)}, of which axolotl reads the first question and answer alone`,
      'leave out type, and give column_mapping {"messages": "completion"} for the whole chat',
    );
  }
  if (markup === undefined || column === undefined) {
    const known = Object.keys(markups).flatMap((name) => Object.keys(promptColumns).map((row) => `${name}.${row}`));
    return new Refused(`has the type ${shown(type)}`, `use ${known.join(", ")}, or fields of your own`);
  }
  return {
    ...(column === "prompt" ? {} : { column_mapping: { prompt: column } }),
    system_format: markup.system,
    prompt_format: markup.prompt,
    completion_format: markup.completion,
  };
}

const OWN = ["field_system", "field_prompt", "field_completion", "field_label", "prompt_format", "completion_format"];

/** A kind of the user's own: `field_prompt`, `prompt_format` and so on. */
function ownForm(type: OptionsInFile): OptionsInFile | Refused {
  const strange = Object.keys(type).find((name) => !OWN.includes(name) && type[name] !== null);
  if (strange !== undefined) return new Refused(`has a type with ${strange}`, `it may have ${OWN.join(", ")}`);
  const noText = OWN.find((name) => !["string", "undefined"].includes(typeof (type[name] ?? undefined)));
  if (noText !== undefined) return new Refused(`has a type whose ${noText} is ${shown(type[noText])}`, "give text");
  const columns = (["system", "prompt", "completion", "label"] as const).flatMap((ours) => {
    const theirs = type[`field_${ours}`];
    return typeof theirs === "string" && theirs !== "" && theirs !== ours ? [[ours, theirs] as const] : [];
  });
  const formats = (["prompt_format", "completion_format"] as const).flatMap((name) => {
    const format = type[name];
    return typeof format === "string" && format !== "" ? [[name, format] as const] : [];
  });
  return {
    ...(columns.length === 0 ? {} : { column_mapping: Object.fromEntries(columns) }),
    ...Object.fromEntries(formats),
  };
}
