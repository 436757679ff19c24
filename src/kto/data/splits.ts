/** Which files belong to a split of a data set, and which of its rows are asked for. */
import { platform } from "../../engine/platform/index.ts";
import { ConfigError, DatasetError, FileError } from "../../errors.ts";
import { endingOf, feedbackEndings } from "./records.ts";

/** One end of a slice: a number of records, or a share of them; negative ones count from the end. */
export interface SliceEnd {
  readonly value: number;
  readonly percent: boolean;
}

/** "train", "test[:100]", "train[10%:20%]". */
export interface SplitRequest {
  readonly name: string;
  readonly from?: SliceEnd;
  readonly to?: SliceEnd;
}

/** @throws ConfigError for what is not a name, or a name with a slice */
export function parseSplit(written: string): SplitRequest {
  const match = /^([\w.-]+)(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?$/.exec(written.trim());
  const name = match?.[1];
  if (name === undefined) {
    throw new ConfigError(
      `option "dataset_train_split" is "${written}"; it must be the name of a split, such as train, or a slice of one, such as train[:100] or train[10%:].`,
    );
  }
  const end = (text: string | undefined): SliceEnd | undefined =>
    text === undefined ? undefined : { value: Number(text.replace("%", "")), percent: text.endsWith("%") };
  const [from, to] = [end(match?.[2]), end(match?.[3])];
  return { name, ...(from ? { from } : {}), ...(to ? { to } : {}) };
}

/** Whether the slice's ends can be told without counting the records first. */
export function needsCount({ from, to }: SplitRequest): boolean {
  return [from, to].some((end) => end !== undefined && (end.percent || end.value < 0));
}

/** The records from `begin` to before `end`, of `count` in all (used where `needsCount`). Shares are rounded. */
export function sliceBounds({ from, to }: SplitRequest, count: number): { begin: number; end: number } {
  const bound = (end: SliceEnd | undefined, fallback: number) => {
    if (end === undefined) return fallback;
    const value = end.percent ? Math.round((end.value / 100) * count) : end.value;
    return Math.max(0, value < 0 || Object.is(value, -0) ? count + value : value);
  };
  return { begin: bound(from, 0), end: bound(to, Number.POSITIVE_INFINITY) };
}

/**
 * The files of a split in a folder, shards in order: `train.jsonl`, `train-00000-of-00002.parquet`, `train/0.jsonl`,
 * also below `data/`. Where no file bears the name of a split, all of them are `train`.
 *
 * @throws DatasetError if there are none, naming what there is, or if a shard is missing
 */
export async function filesOfSplit(folder: string, split = "train"): Promise<string[]> {
  const found = new Map<string, string[]>();
  const unnamed: string[] = [];
  for (const { path, name } of await feedbackFiles(folder)) {
    if (name === undefined) unnamed.push(path);
    else found.set(name, [...(found.get(name) ?? []), path]);
  }
  const files = found.get(split) ?? (split === "train" && found.size === 0 ? unnamed : []);
  if (files.length === 0) {
    const forms = feedbackEndings.map((ending) => `.${ending}`).join(", ");
    throw new DatasetError(
      found.size > 0
        ? `${folder} has no files of the split "${split}"; its splits are ${[...found.keys()].sort().join(", ")}.`
        : `${folder} has no files of the split "${split}"; such a file is named ${split}.jsonl or ${split}-00000-of-00001.parquet (endings ${forms}).`,
    );
  }
  checkShards(files);
  return files;
}

/** The files of `dataset_name`: itself, or those of the split in the folder that it is. */
export async function filesOf(path: string, split: string): Promise<string[]> {
  if ((await platform.exists(path)) === "folder") return await filesOfSplit(path, split);
  if (split !== "train") {
    throw new DatasetError(
      `${path} is not a folder with files of several splits, so it has no split "${split}"; leave dataset_train_split at train.`,
    );
  }
  return [path];
}

interface FoundFile {
  readonly path: string;
  /** The split in its name, or in its folder's. */
  readonly name: string | undefined;
}

async function feedbackFiles(folder: string): Promise<FoundFile[]> {
  const files: FoundFile[] = [];
  const visit = async (current: string, folderSplit: string | undefined, depth: number) => {
    for (const entry of await platform.list(current)) {
      if (entry.startsWith(".")) continue;
      const path = platform.joinPath(current, entry);
      if (feedbackEndings.some((ending) => ending === endingOf(entry))) {
        if (isOfAnotherKind(entry)) continue;
        files.push({ path, name: splitInName(entry) ?? folderSplit });
      } else if (depth < 2 && !entry.includes(".") && (await platform.exists(path)) === "folder") {
        await visit(path, splitWord(entry) ?? folderSplit, depth + 1);
      }
    }
  };
  await visit(folder, undefined, 0);
  return files;
}

/** Files about the data set, which carry no rows. */
function isOfAnotherKind(name: string): boolean {
  return ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"].includes(name);
}

/** The words by which files say their split; other names are split names only with shard numbers. */
function splitWord(text: string): string | undefined {
  const word = /(?:^|[^a-z0-9])(train|training|test|testing|validation|valid|val|dev|eval)(?=$|[^a-z])/i.exec(
    text,
  )?.[1];
  const names: Readonly<Record<string, string>> = {
    training: "train",
    testing: "test",
    valid: "validation",
    val: "validation",
    dev: "validation",
    eval: "test",
  };
  const lower = word?.toLowerCase();
  return lower === undefined ? undefined : (names[lower] ?? lower);
}

function splitInName(file: string): string | undefined {
  const stem = file.slice(0, file.lastIndexOf("."));
  return /^(.+)-\d{5}-of-\d{5}$/.exec(stem)?.[1] ?? splitWord(stem);
}

function checkShards(files: readonly string[]): void {
  const shards = files.flatMap((path) => {
    const match = /^(.*)-(\d{5})-of-(\d{5})(\.\w+)$/.exec(path);
    return match
      ? [{ path, before: match[1] ?? "", index: Number(match[2]), of: match[3] ?? "", ending: match[4] ?? "" }]
      : [];
  });
  for (const { before, of, ending } of shards) {
    const present = new Set(shards.filter((one) => one.before === before && one.of === of).map(({ index }) => index));
    for (let index = 0; index < Number(of); index++) {
      if (present.has(index)) continue;
      const missing = `${before}-${String(index).padStart(5, "0")}-of-${of}${ending}`;
      throw new FileError(`Cannot read ${missing}: it does not exist, but the other shards of the split do.`);
    }
  }
}
