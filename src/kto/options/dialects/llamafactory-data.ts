/**
 * LLaMA-Factory's data sets: names that its dataset_info.json explains (file or repository, columns, form), read into
 * our options of the feedback. As there, rows of text are a user's message and an answer, put into the chat template.
 */
import { isJsonObject } from "../../../engine/files/json-file.ts";
import { platform } from "../../../engine/platform/index.ts";
import { errorMessage, shown } from "../../../errors.ts";
import { type OptionsInFile, Refused, type Rule } from "./dialect.ts";

interface DataRules {
  readonly rules: Readonly<Record<string, Rule>>;
  readonly problems: readonly string[];
}

/** Rules for "dataset" and "eval_dataset", which need the file that describes them. */
export async function dataSetRules(values: OptionsInFile): Promise<DataRules> {
  const { dataset_dir: folder = "data" } = values;
  const names = (value: unknown) => (Array.isArray(value) ? value.map(String) : String(value).split(",")).map(trimmed);
  const problems: string[] = [];
  const rules: Record<string, Rule> = { dataset_dir: () => ({}) };
  const wanted = ["dataset", "eval_dataset"].filter((name) => values[name] !== undefined && values[name] !== null);
  if (wanted.length === 0) return { rules, problems };
  let info: OptionsInFile = {};
  if (folder !== "ONLINE") {
    const path = platform.joinPath(String(folder), "dataset_info.json");
    try {
      const read: unknown = JSON.parse(await platform.readText(path));
      if (!isJsonObject(read)) throw new Error("it is no object of data sets");
      info = read;
    } catch (error) {
      const why = errorMessage(error).replace(/\.$/, "");
      problems.push(
        `LLaMA-Factory's description of data sets ${path} cannot be read (${why}): give its folder as dataset_dir, or the rows in dataset_name in place of dataset.`,
      );
      // The name stands for the rows, so that these are not told to be missing too.
      const dataset: Rule = (value, { dataset_name }) =>
        dataset_name === undefined ? { dataset_name: String(value) } : {};
      return { rules: { ...rules, dataset, eval_dataset: () => ({}) }, problems };
    }
  }
  const places = new Map<string, OptionsInFile | Refused>();
  for (const option of wanted) places.set(option, together(names(values[option]), info, String(folder)));
  rules.dataset = () => places.get("dataset") ?? {};
  rules.eval_dataset = () => {
    const place = places.get("eval_dataset") ?? {};
    if (place instanceof Refused) return place;
    const { dataset_name, dataset_train_split: split, dataset_config: _, ...form } = place;
    const training = places.get("dataset");
    if (training === undefined) return new Refused("stands without dataset", "name its file as eval_dataset_name");
    if (training instanceof Refused) return {}; // told of the rows to train on
    const differs = Object.keys(form).find((name) => shown(form[name]) !== shown(training[name]));
    if (differs !== undefined)
      return new Refused(`has another ${differs} than the rows to train on`, "give them alike");
    return { eval_dataset_name: dataset_name, ...(split === undefined ? {} : { dataset_test_split: split }) };
  };
  return { rules, problems };
}

function trimmed(text: string): string {
  return text.trim();
}

/** Several data sets as one, which must have the same form. */
function together(names: readonly string[], info: OptionsInFile, folder: string): OptionsInFile | Refused {
  const all = names.map((name) => dataSet(name, info, folder));
  const refused = all.find((one) => one instanceof Refused);
  if (refused !== undefined) return refused;
  const [first = {}, ...others] = all as readonly OptionsInFile[];
  const form = ({ dataset_name: _, ...rest }: OptionsInFile) => shown(rest, Number.POSITIVE_INFINITY);
  if (others.some((other) => form(other) !== form(first))) {
    return new Refused("are data sets with different columns", "convert them (kto data --output), then name the files");
  }
  return {
    ...first,
    dataset_name: (all as readonly OptionsInFile[]).map(({ dataset_name }) => dataset_name).join(","),
  };
}

/** Columns of dataset_info.json that are read, by our names. */
const TEXT_COLUMNS = { prompt: "prompt", query: "query", completion: "response", system: "system" } as const;

function dataSet(name: string, info: OptionsInFile, folder: string): OptionsInFile | Refused {
  if (folder === "ONLINE") return { dataset_name: name, text_as_chat: true };
  const described = info[name];
  if (typeof described !== "object" || described === null) {
    return new Refused(`names "${name}", which dataset_info.json does not describe`, "add it there");
  }
  const about = described as OptionsInFile;
  const place = placeOf(about, folder);
  if (place instanceof Refused) return place;
  const { formatting = "alpaca", subset, split, num_samples, ranking, tags } = about;
  const columns = (about.columns ?? {}) as OptionsInFile;
  const label = columns.kto_tag;
  if (typeof label !== "string") return new Refused(`names "${name}", which has no kto_tag`, "add it to its columns");
  const unread = Object.keys(columns).find((column) => ["history", "images", "videos", "audios"].includes(column));
  if (unread !== undefined) {
    return new Refused(`names "${name}" with a column ${unread}, which is not read here`, "give rows of messages");
  }
  if (ranking === true) return new Refused(`names "${name}", whose rows are ranked pairs`, "leave out ranking");
  const shared = {
    dataset_name: place,
    text_as_chat: true,
    ...(subset === undefined ? {} : { dataset_config: subset }),
    ...(split === undefined ? {} : { dataset_train_split: split }),
    ...(num_samples === undefined || num_samples === null ? {} : { max_samples: num_samples }),
  };
  if (formatting === "alpaca") {
    const own = about.columns === undefined ? { prompt: "instruction", query: "input", response: "output" } : columns;
    const mapped = Object.entries(TEXT_COLUMNS).flatMap(([ours, theirs]) => {
      const column = (own as OptionsInFile)[theirs];
      return typeof column === "string" ? [[ours, column] as const] : [];
    });
    return { ...shared, column_mapping: Object.fromEntries([...mapped, ["label", label]]) };
  }
  if (formatting !== "sharegpt" && formatting !== "openai") {
    return new Refused(`names "${name}" in the form ${shown(formatting)}`, "give rows of messages");
  }
  const strange = strangeTag((tags ?? {}) as OptionsInFile);
  if (strange !== undefined) {
    return new Refused(
      `names "${name}" with the tag ${strange}`,
      "give messages with role and content, or from and value",
    );
  }
  const messages = columns.messages ?? (formatting === "openai" ? "messages" : "conversations");
  return { ...shared, column_mapping: { conversations: messages, ...textColumns(columns), label } };
}

function textColumns({ system, tools }: OptionsInFile): OptionsInFile {
  return { ...(typeof system === "string" ? { system } : {}), ...(typeof tools === "string" ? { tools } : {}) };
}

/** Values of tags that messages are read with anyway. */
const KNOWN_TAGS: Readonly<Record<string, readonly string[]>> = {
  role_tag: ["from", "role"],
  content_tag: ["value", "content"],
  user_tag: ["human", "user"],
  assistant_tag: ["gpt", "assistant"],
  observation_tag: ["observation", "tool", "function_response"],
  function_tag: ["function_call"],
  system_tag: ["system"],
};

function strangeTag(tags: OptionsInFile): string | undefined {
  const found = Object.entries(tags).find(([name, value]) => KNOWN_TAGS[name]?.includes(String(value)) !== true);
  return found && `${found[0]} ${shown(found[1])}`;
}

/** Where the rows are: a file beside dataset_info.json, or a repository on the hub. */
function placeOf({ file_name, hf_hub_url, ...others }: OptionsInFile, folder: string): string | Refused {
  if (typeof hf_hub_url === "string") return hf_hub_url;
  if (typeof file_name === "string") return platform.joinPath(folder, file_name);
  const kind = ["ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"].find((name) => others[name] !== undefined);
  return new Refused(`names rows by ${kind ?? "nothing that is known"}`, "give file_name or hf_hub_url");
}
