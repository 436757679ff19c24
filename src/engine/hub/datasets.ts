/**
 * Which files of a data set belong to which split: by the `configs` in the front matter of its README.md, else by the
 * names of folders and files, as the `datasets` library of Hugging Face reads them. Names only; nothing is opened.
 */
import { parse as parseYaml } from "yaml";
import { ConfigError, counted, DatasetError, shown } from "../../errors.ts";
import { textsMatching } from "../files/foreign-pattern.ts";
import { isJsonObject } from "../files/json-file.ts";

/** File names by split: "train", "test", "train_prefs", ... */
export type SplitFiles = Readonly<Record<string, readonly string[]>>;

/** What `splitsOf` finds. */
export interface FoundSplits {
  readonly splits: SplitFiles;
  /** Data files of a split that are not among its files, since they are of another kind or hold the same rows. */
  readonly otherKinds: SplitFiles;
  /** Data files whose names stand for no split, while those of others do. */
  readonly unnamed: readonly string[];
}

/**
 * Kinds of data files by their endings, as the `datasets` library groups them. Of two kinds, or of two files with one
 * name, that are equally frequent, the earlier in this list is taken.
 */
const kinds: readonly (readonly string[])[] = [
  ["parquet"],
  ["jsonl", "ndjson", "json"],
  ["csv"],
  ["db", "sqlite", "sqlite3"],
];
const endings = kinds.flat();

/** JSON files that describe a data set or a program and hold no rows. */
const descriptions = /^(dataset_infos?|dataset_dict|state|metadata|config|package|package-lock|tsconfig)\.json$/;

/** Words in file names that stand for a split. */
const splitWords: readonly [split: string, words: readonly string[]][] = [
  ["train", ["train", "training"]],
  ["validation", ["validation", "valid", "dev", "val"]],
  ["test", ["test", "testing", "eval", "evaluation"]],
];

/** Whether a name ends like a data file, so that it cannot be the id of a repository. */
export function isDataFile(name: string): boolean {
  return endings.includes(endingOf(name));
}

/**
 * @param files of the repository or folder, with "/" between folders
 * @param readme the text of README.md, if there is one
 * @param config the subset: a config of the README, else the name of a folder or the beginning of file names
 * @param where names the data set in messages
 * @throws ConfigError if a subset must be named, if the named one does not exist, or if there are no data files;
 *   DatasetError for a pattern of README.md that is none or takes too long
 */
export function splitsOf(
  files: readonly string[],
  readme: string | undefined,
  config: string | undefined,
  where: string,
): FoundSplits {
  const data = files.filter(
    (file) =>
      isDataFile(file) && !descriptions.test(baseOf(file)) && !file.split("/").some((part) => /^[._]/.test(part)),
  );
  const declared = declaredConfigs(readme);
  const chosen = chooseConfig(declared, config, where);
  if (chosen !== undefined) {
    const found = declaredSplits(chosen, data);
    if (Object.keys(found.splits).length > 0) return found;
  }
  const subset = config === undefined || chosen !== undefined ? data : subsetOf(data, config);
  if (subset.length === 0) {
    throw new ConfigError(
      data.length === 0 || config === undefined
        ? `${where} holds no .parquet, .jsonl, .json or .csv file of data.`
        : `${where} has no subset "${config}": neither a config, a folder nor a file begins with that name.`,
    );
  }
  return splitsByName(subset, config);
}

/**
 * Sentences on data files that are in none of these splits although one may expect them there.
 *
 * @param where names the data set
 */
export function leftOutWarnings(
  { splits, otherKinds, unnamed }: FoundSplits,
  wanted: readonly string[],
  where: string,
) {
  const remedy = "give a file itself as dataset_name to read it";
  const named = (files: readonly string[]) =>
    `${counted(files.length, "data file")} (${files.slice(0, 5).join(", ")}${files.length > 5 ? ", …" : ""})`;
  const warnings = wanted.flatMap((split) => {
    const [others = [], [first = ""] = []] = [otherKinds[split], splits[split]];
    if (others.length === 0) return [];
    return `${where}: the split "${split}" is read from its .${endingOf(first)} files, and ${named(others)} of another format or with the same name ${others.length === 1 ? "is" : "are"} left out; ${remedy}.`;
  });
  if (unnamed.length === 0) return warnings;
  const verbs = unnamed.length === 1 ? "names no split and is" : "name no split and are";
  return [...warnings, `${where}: ${named(unnamed)} ${verbs} left out, since other files do; ${remedy}.`];
}

type DeclaredConfig = ReturnType<typeof declaredConfigs>[number];

function declaredConfigs(readme: string | undefined) {
  const front = /^\uFEFF?---\r?\n([\s\S]*?)\r?\n---/.exec(readme ?? "")?.[1];
  if (front === undefined) return [];
  let header: unknown;
  try {
    header = parseYaml(front);
  } catch {
    // The hub shows such a README all the same; the names of the files decide.
    return [];
  }
  const configs = isJsonObject(header) && Array.isArray(header.configs) ? header.configs : [];
  return configs.filter(isJsonObject).map((entry) => ({
    name: String(entry.config_name ?? "default"),
    isDefault: entry.default === true,
    folder: typeof entry.data_dir === "string" ? entry.data_dir.replace(/^\.?\/|\/$/g, "") : undefined,
    patterns: patternsOf(entry.data_files),
  }));
}

/** `data_files` is a pattern, a list of patterns, or a list of splits with their patterns. */
function patternsOf(dataFiles: unknown): { split: string; patterns: string[] }[] {
  const texts = (value: unknown) => (Array.isArray(value) ? value : [value]).filter((one) => typeof one === "string");
  const listed = Array.isArray(dataFiles) ? dataFiles : [];
  const bySplit = listed.filter(isJsonObject).map(({ split, path }) => ({
    split: String(split ?? "train"),
    patterns: texts(path),
  }));
  const plain = texts(dataFiles);
  return plain.length > 0 ? [{ split: "train", patterns: plain }, ...bySplit] : bySplit;
}

function chooseConfig(
  declared: readonly DeclaredConfig[],
  config: string | undefined,
  where: string,
): DeclaredConfig | undefined {
  if (config !== undefined) return declared.find(({ name }) => name === config);
  const standard = declared.find(({ isDefault }) => isDefault) ?? declared.find(({ name }) => name === "default");
  if (standard !== undefined || declared.length <= 1) return standard ?? declared[0];
  const names = declared.map(({ name }) => name).join(", ");
  throw new ConfigError(`${where} has several subsets: set dataset_config to one of ${names}.`);
}

function declaredSplits({ folder, patterns }: DeclaredConfig, data: readonly string[]): FoundSplits {
  const below = (pattern: string) => (folder === undefined || folder === "" ? pattern : `${folder}/${pattern}`);
  if (patterns.length === 0) {
    const inFolder = data.filter((file) => folder !== undefined && file.startsWith(below("")));
    return splitsByName(inFolder, folder);
  }
  const found = patterns.map(({ split, patterns: own }): [string, string[]] => {
    const matching = new Set(own.flatMap((pattern) => filesMatching(below(pattern.replace(/^\.\//, "")), data)));
    return [split, data.filter((file) => matching.has(file))];
  });
  // Whoever wrote the patterns chose the files.
  const splits = Object.fromEntries(found.filter(([, matching]) => matching.length > 0));
  return { splits, otherKinds: {}, unnamed: [] };
}

/** A pattern has `*` within a folder, `**` across folders, `?`, `[...]` and `{a,b}`. */
function filesMatching(pattern: string, data: readonly string[]): string[] {
  const source = pattern.replace(/\*\*\/?|\*|\?|\[[^\]/]+\]|\{[^{}/]*\}|[\s\S]/g, (piece) => {
    if (piece === "**/") return "(?:.*/)?";
    if (piece === "**") return ".*";
    if (piece === "*") return "[^/]*";
    if (piece === "?") return "[^/]";
    if (/^\[.+\]$/.test(piece)) return piece.replace(/^\[!/, "[^").replaceAll("\\", "\\\\");
    if (/^\{.*\}$/.test(piece)) return `(?:${piece.slice(1, -1).split(",").map(escaped).join("|")})`;
    return escaped(piece);
  });
  return textsMatching(`^${source}$`, data, `The pattern ${shown(pattern)} of README.md`, { refusal: DatasetError });
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}

/** Files in a folder of that name, else files whose names begin with it. */
function subsetOf(data: readonly string[], config: string): string[] {
  const inFolder = data.filter((file) => file.startsWith(`${config}/`) || file.startsWith(`data/${config}/`));
  if (inFolder.length > 0) return inFolder;
  const begins = new RegExp(`^${escaped(config)}[-_.]`);
  return data.filter((file) => begins.test(baseOf(file)));
}

/** Data files of one kind, and one of each name: the same rows in several formats would count twice. */
function mostCommonKind(data: readonly string[]): string[] {
  const ofKind = (kind: readonly string[]) => data.filter((file) => kind.includes(endingOf(file)));
  const own = kinds.map(ofKind).reduce((most, files) => (files.length > most.length ? files : most));
  const stem = (file: string) => file.slice(0, file.lastIndexOf("."));
  const rank = (file: string) => endings.indexOf(endingOf(file));
  return own.filter((file) => !own.some((other) => stem(other) === stem(file) && rank(other) < rank(file)));
}

/** Splits by file name. Files that name no split are left out; if no file names one, all are for training. */
function splitsByName(data: readonly string[], config: string | undefined): FoundSplits {
  const bySplit = new Map<string, string[]>();
  const unnamed: string[] = [];
  for (const file of data) {
    const split = splitOfName(file, config);
    if (split === undefined) unnamed.push(file);
    else bySplit.set(split, [...(bySplit.get(split) ?? []), file]);
  }
  const allUnnamed = bySplit.size === 0;
  if (allUnnamed && data.length > 0) bySplit.set("train", unnamed);
  const chosen = [...bySplit].map(([split, files]) => [split, files, mostCommonKind(files)] as const);
  return {
    splits: Object.fromEntries(chosen.map(([split, , files]) => [split, files])),
    otherKinds: Object.fromEntries(
      chosen.map(([split, all, files]) => [split, all.filter((file) => !files.includes(file))]),
    ),
    unnamed: allUnnamed ? [] : unnamed,
  };
}

function splitOfName(file: string, config: string | undefined): string | undefined {
  // The name of the subset says nothing about the split: a subset may be called "test-set".
  const own = config !== undefined && file.includes(config) ? file.slice(file.indexOf(config) + config.length) : file;
  // In data/train_prefs-00000-of-00002.parquet, the split is whatever stands before the number.
  const sharded = /(?:^|\/)([A-Za-z]\w*)-\d+-of-\d+\.\w+$/.exec(own)?.[1];
  if (sharded !== undefined) {
    return splitWords.find(([, names]) => names.includes(sharded.toLowerCase()))?.[0] ?? sharded;
  }
  for (const part of own.split("/").toReversed()) {
    const words = part.toLowerCase().split(/[^a-z]+/);
    const found = splitWords.find(([, names]) => words.some((word) => names.includes(word)));
    if (found !== undefined) return found[0];
  }
  return undefined;
}

/** A numbered file whose set is not complete, as after a download that was broken off. */
export function incompleteShards(files: readonly string[]): string | undefined {
  return files.find((file) => {
    const [, before, total, after] = /^(.*)-\d+-of-(\d+)(\.\w+)$/.exec(file) ?? [];
    if (before === undefined || after === undefined || total === undefined) return false;
    const present = files.filter((other) => other.startsWith(`${before}-`) && other.endsWith(`-of-${total}${after}`));
    return present.length < Number(total);
  });
}

function endingOf(file: string): string {
  return file.slice(file.lastIndexOf(".") + 1).toLowerCase();
}

function baseOf(file: string): string {
  return file.slice(file.lastIndexOf("/") + 1);
}
