/**
 * Lists of data sets under `datasets:`, as TRL's mixtures and axolotl's configurations have them, read into our options
 * of the feedback; with them TRL's own dialect, which has no other name that is not ours.
 */
import { shown } from "../../../errors.ts";
import { type Dialect, type OptionsInFile, Refused, type Rule, translated } from "./dialect.ts";

/** Builders of Hugging Face's datasets, whose rows are in data_files. */
const BUILDERS = ["json", "csv", "parquet"];

/** Makes our options of one entry's members beside its place. */
export type FormOf = (entry: OptionsInFile) => OptionsInFile | Refused;

/**
 * All data sets of a list as one, which must have the same form.
 *
 * @param known members of an entry that `formOf` reads
 */
export function listOfDataSets(value: unknown, known: readonly string[], formOf: FormOf): OptionsInFile | Refused {
  const entries = Array.isArray(value) ? (value as unknown[]) : [value];
  const all = entries.map((entry): OptionsInFile | Refused => {
    if (typeof entry !== "object" || entry === null)
      return new Refused("is no list of data sets", "give a list of path");
    const {
      path,
      data_files: files,
      split,
      name,
      revision,
      data_dir: folder,
      ...rest
    } = withoutNull(entry as OptionsInFile);
    const place = placeOf(path ?? rest.dataset_name, files);
    if (place instanceof Refused) return place;
    const unknown = Object.keys(rest).find((member) => !known.includes(member));
    if (unknown !== undefined) return new Refused(`has an entry with ${unknown}, which is not known here`);
    if (folder !== undefined || (revision !== undefined && revision !== "main")) {
      return new Refused(
        `has an entry with ${folder === undefined ? "revision" : "data_dir"}`,
        "name the files as path",
      );
    }
    const form = formOf(rest);
    if (form instanceof Refused) return form;
    return {
      dataset_name: place,
      ...(name === undefined ? {} : { dataset_config: name }),
      ...(split === undefined ? {} : { dataset_train_split: split }),
      ...form,
    };
  });
  const refused = all.find((one) => one instanceof Refused);
  if (refused !== undefined) return refused;
  const [first, ...others] = all as readonly OptionsInFile[];
  if (first === undefined) return new Refused("is empty", "give a data set");
  const formText = ({ dataset_name: _, ...form }: OptionsInFile) => shown(form, Number.POSITIVE_INFINITY);
  if (others.some((other) => formText(other) !== formText(first))) {
    return new Refused("are data sets of different forms", "convert them (kto data --output), then name the files");
  }
  return { ...first, dataset_name: [first, ...others].map(({ dataset_name }) => dataset_name).join(",") };
}

function withoutNull(values: OptionsInFile): OptionsInFile {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));
}

function placeOf(path: unknown, files: unknown): string | Refused {
  if (files === undefined || files === "") {
    return typeof path === "string" && path !== "" ? path : new Refused("has an entry without path", "add it");
  }
  const names = Array.isArray(files) ? files.map(String) : [String(files)];
  if (typeof files === "object" && !Array.isArray(files)) return new Refused("has data_files by split", "list them");
  if (path === undefined || BUILDERS.includes(String(path))) return names.join(",");
  return new Refused("has data_files of a repository", "name its subset as dataset_config, or give local files");
}

const rules: Readonly<Record<string, Rule>> = {
  datasets: (value) =>
    listOfDataSets(value, ["columns", "fraction"], ({ fraction }) =>
      fraction === undefined ? {} : new Refused("has a share of a data set", "use max_samples, or slice its split"),
    ),
  test_split_size: "validation_split",
};

/** TRL's mixtures of data sets. */
export const trlMixture: Dialect = {
  product: "TRL",
  recognises: ({ datasets }) => Array.isArray(datasets),
  knows: (name) => Object.hasOwn(rules, name),
  translate: async (values, ourName) => {
    const stands = { datasets: "dataset_name" };
    const table = { rules, stands, isIdle: (name: string) => name === "streaming", defaults: () => ({}) };
    // Null may have a meaning of its own under TRL's names.
    const nulls = Object.entries(values).flatMap(([from, value]) => {
      const name = value === null ? ourName(from) : undefined;
      return name === undefined ? [] : [{ name, value, from }];
    });
    const { entries, ...rest } = translated(values, table, ourName);
    return { ...rest, entries: [...entries, ...nulls] };
  },
};
