/**
 * Finds the files of a model or a data set that is given as a local path or as an id on the Hugging Face hub. A path
 * that exists always wins. Only what is needed is downloaded, into the cache that huggingface_hub uses as well.
 */
import { ConfigError, FileError, ModelFormatError } from "../../errors.ts";
import { isJsonObject, parseJsonObject, readModelText } from "../files/json-file.ts";
import { parseModelConfig } from "../model/config/config.ts";
import { MODEL_FILES, TEMPLATES_FOLDER, TOKENIZER_FILES } from "../model/config/folder.ts";
import { type FileSource, platform } from "../platform/index.ts";
import { filesBelow, isFileName } from "./cache.ts";
import { incompleteShards, isDataFile, leftOutWarnings, splitsOf } from "./datasets.ts";
import { type HubOptions, hubSettings } from "./settings.ts";
import { type Snapshot, withSnapshot } from "./snapshot.ts";

export type { DownloadProgress, HubOptions, HubPatience } from "./settings.ts";

/** Small files of a model that this program reads, or programs that use its results. */
const modelFiles = new Set([...MODEL_FILES, ...TOKENIZER_FILES, "vocab.txt", "adapter_config.json"]);
const moreTemplates = new RegExp(`^${TEMPLATES_FOLDER}/[^/]+\\.jinja$`);

const weightsFile = "model.safetensors";
const indexFile = "model.safetensors.index.json";
const adapterFile = "adapter_model.safetensors";

/** Whether a text has the form of a repository's id: "name" or "owner/name" (huggingface_hub's rules). */
export function isRepositoryId(text: string): boolean {
  return (
    text.length <= 96 &&
    /^(?:[A-Za-z0-9][\w.-]*\/)?[A-Za-z0-9][\w.-]*$/.test(text) &&
    !/--|\.\.|[-.](?:\/|$)|\.git$/.test(text)
  );
}

/** Endings of the files of models, which no repository's name has. */
const fileEnding = /\.(safetensors|gguf|ggml|bin|pt|pth|onnx|h5|json|jsonl|txt|ya?ml)$/i;

/**
 * A name such as "runs/aligned" has the form of an id and is often a path that was mistyped. Where its folder is here,
 * the hub is asked once, so that the answer does not wait for a hub that is out of reach.
 */
async function attemptsFor(nameOrPath: string): Promise<number | undefined> {
  const [parent, rest] = nameOrPath.split("/");
  const isBeside = parent !== undefined && rest !== undefined && (await platform.exists(parent)) === "folder";
  return isBeside ? 1 : undefined;
}

export interface ModelFetchOptions extends HubOptions {
  /** False where configuration and tokenizer are enough; true by default. */
  readonly weights?: boolean | undefined;
}

/**
 * The local folder of a model, downloaded first if it is a hub id and not cached yet. A local path is returned
 * unchanged and unchecked. A model that is not supported is refused before its weights are downloaded.
 *
 * @throws FileError for a name that is neither, for a repository that the hub does not give, and for a download that
 *   fails; ModelFormatError for a repository without safetensors weights or with an unsupported model; ConfigError for
 *   settings that cannot be used
 */
export async function resolveModelFolder(nameOrPath: string, options: ModelFetchOptions = {}): Promise<string> {
  if (await isLocalModel(nameOrPath, options)) return nameOrPath;
  const { weights = true } = options;
  const fetchAll = async (snapshot: Snapshot) => {
    await fetchModel(snapshot, weights);
    return snapshot.folder;
  };
  return await withModel(nameOrPath, options, fetchAll, !weights);
}

/** A model of which nothing but configuration and headers is needed. */
export interface ModelHeaders {
  /** It has config.json and the index of shards. */
  readonly folder: string;
  /** Where its weight files are, which may stay on the hub. */
  readonly files: FileSource;
}

/**
 * A model to look at: of a hub's only config.json and the index of shards are downloaded, and its weight files are read
 * by ranges.
 *
 * @throws as `resolveModelFolder` does; FileError for a quantised model, of which headers are not enough
 */
export async function resolveModelHeaders(nameOrPath: string, options: HubOptions = {}): Promise<ModelHeaders> {
  if (await isLocalModel(nameOrPath, options)) return { folder: nameOrPath, files: platform };
  const look = async (snapshot: Snapshot): Promise<ModelHeaders> => {
    const { folder, origin, files, pathOf } = snapshot;
    if (!files.includes("config.json")) throw new ModelFormatError(`${origin} has no config.json.`);
    await snapshot.fetch(["config.json", indexFile].filter((name) => files.includes(name)));
    const path = pathOf("config.json");
    const config = parseJsonObject(await readModelText(path), path);
    parseModelConfig(JSON.stringify(config), path);
    if (config.quantization_config !== undefined && !(await hasWeights(snapshot))) {
      throw new FileError(
        `${origin} is quantised, and what its tensors are is not in their headers alone; download it, or name the model that it was made from.`,
      );
    }
    return { folder, files: sourceOf(snapshot) };
  };
  return await withModel(nameOrPath, options, look, true);
}

/** Whether all weight files of a repository are on this machine. */
async function hasWeights({ files, pathOf }: Snapshot): Promise<boolean> {
  for (const name of files) {
    if (name.endsWith(".safetensors") && (await platform.exists(pathOf(name))) !== "file") return false;
  }
  return true;
}

/** The files of a repository, as if they were in its local folder. */
function sourceOf({ folder, files, pathOf, open }: Snapshot): FileSource {
  const named = (path: string) => files.find((name) => pathOf(name) === path);
  return {
    exists: async (path) => (named(path) === undefined ? await platform.exists(path) : "file"),
    list: async (path) => (path === folder ? [...files] : await platform.list(path)),
    openFile: async (path) => {
      const name = named(path);
      return name === undefined ? await platform.openFile(path) : await open(name);
    },
  };
}

/** @throws FileError for a name that is neither a path nor the id of a repository */
async function isLocalModel(nameOrPath: string, { revision, onWarning }: HubOptions): Promise<boolean> {
  if ((await platform.exists(nameOrPath)) !== undefined) {
    if (revision !== undefined && revision !== "main") {
      onWarning?.(`${nameOrPath} is a local path, so the revision "${revision}" has no meaning for it.`);
    }
    return true;
  }
  if (isRepositoryId(nameOrPath) && !fileEnding.test(nameOrPath)) return false;
  throw new FileError(
    `The model folder "${nameOrPath}" does not exist; give a local Hugging Face folder with config.json and model.safetensors, or an id on the Hugging Face hub ("owner/name").`,
  );
}

async function withModel<T>(
  id: string,
  options: HubOptions,
  use: (snapshot: Snapshot) => Promise<T>,
  partial: boolean,
): Promise<T> {
  const settings = await hubSettings(options);
  const attempts = await attemptsFor(id);
  return await withSnapshot({ settings, kind: "model", id }, use, { partial, attempts });
}

async function fetchModel(snapshot: Snapshot, withWeights: boolean): Promise<void> {
  const { files, origin } = snapshot;
  const has = (name: string) => files.includes(name);
  const whole = has(weightsFile);
  const sharded = !whole && has(indexFile);
  if (withWeights && !whole && !sharded && !has(adapterFile)) {
    const others = files.some((file) => /\.(bin|pt|pth|gguf|onnx|h5|msgpack)$/.test(file));
    throw new ModelFormatError(
      `${origin} has no ${weightsFile}: ${others ? "its weights are in another format, so choose a repository that has them as safetensors" : snapshot.isCached ? "its weights were not downloaded; run once online" : "there are no weights to load"}.`,
    );
  }
  if (!has("config.json") && !has("adapter_config.json")) throw new ModelFormatError(`${origin} has no config.json.`);
  const small = files.filter((file) => modelFiles.has(file) || moreTemplates.test(file));
  await snapshot.fetch(sharded && withWeights ? [...small, indexFile] : small);
  if (has("config.json")) {
    const path = snapshot.pathOf("config.json");
    parseModelConfig(await readModelText(path), path);
  }
  if (!withWeights) return;
  const weights = sharded ? await shardsOf(snapshot) : [weightsFile];
  await snapshot.fetch([...weights, adapterFile].filter(has));
}

/** The shards that the index names; the repository must have all of them. */
async function shardsOf({ files, origin, pathOf }: Snapshot): Promise<string[]> {
  const path = pathOf(indexFile);
  const map = parseJsonObject(await readModelText(path), path).weight_map;
  const shards = isJsonObject(map) ? [...new Set(Object.values(map))] : [];
  if (shards.length === 0) throw new ModelFormatError(`${path} has no "weight_map" that names shards.`);
  return shards.map((shard) => {
    if (typeof shard === "string" && isFileName(shard) && files.includes(shard)) return shard;
    throw new ModelFormatError(`${origin} has no ${String(shard)}, which its ${indexFile} names as a shard.`);
  });
}

export interface DatasetOptions extends HubOptions {
  /** A subset ("config"): one that README.md declares, else a folder or the beginning of file names. */
  readonly config?: string | undefined;
  /** The splits to download; all by default. */
  readonly splits?: readonly string[] | undefined;
}

/** What a data set's name stands for: several paths with commas between them, unless the name is itself a path. */
export async function datasetParts(nameOrPath: string): Promise<string[]> {
  if (!nameOrPath.includes(",") || (await platform.exists(nameOrPath)) !== undefined) return [nameOrPath];
  const parts = nameOrPath.split(",").map((part) => part.trim());
  return parts.filter((part) => part !== "");
}

/** Whether a data set's name stands for local files only, whose rows are every split. */
export async function isLocalFiles(nameOrPath: string): Promise<boolean> {
  for (const part of await datasetParts(nameOrPath)) if ((await platform.exists(part)) !== "file") return false;
  return true;
}

/**
 * The local files of a data set by split. A local file is the split "train", a local folder is read like a
 * repository; several of them have commas between them. Data files that are left out are named in a warning
 * (`onWarning`, by default console.warn).
 *
 * @throws FileError as resolveModelFolder does; ConfigError for a subset or split that is not there
 */
export async function resolveDatasetFiles(
  nameOrPath: string,
  options: DatasetOptions = {},
): Promise<Record<string, string[]>> {
  const parts = await datasetParts(nameOrPath);
  if (parts.length !== 1 || parts[0] !== nameOrPath) {
    const whole = new Map<string, string[]>();
    for (const part of parts) {
      for (const [split, files] of Object.entries(await resolveDatasetFiles(part, options))) {
        whole.set(split, [...(whole.get(split) ?? []), ...files]);
      }
    }
    return Object.fromEntries(whole);
  }
  const found = await platform.exists(nameOrPath);
  // A file that is missing is told by whoever opens it.
  if (found === "file" || (found === undefined && isDataFile(nameOrPath))) {
    const other = options.splits?.find((split) => split !== "train");
    if (other === undefined && options.config === undefined) return { train: [nameOrPath] };
    throw new ConfigError(
      `${nameOrPath} is one file, whose rows are the split "train"; it has no ${other === undefined ? `subset "${options.config}"` : `split "${other}"`}.`,
    );
  }
  if (found === "folder") {
    const pathOf = (name: string) => platform.joinPath(nameOrPath, ...name.split("/"));
    const files = await filesBelow(nameOrPath);
    return await fetchSplits(
      {
        folder: nameOrPath,
        origin: nameOrPath,
        isCached: false,
        files,
        pathOf,
        fetch: async () => {},
        open: (name) => platform.openFile(pathOf(name)),
      },
      options,
    );
  }
  if (!isRepositoryId(nameOrPath)) {
    throw new FileError(
      `Cannot read feedback from ${nameOrPath}: it does not exist; give a local .jsonl, .json, .csv, .parquet or .db file, or an id on the Hugging Face hub ("owner/name").`,
    );
  }
  const settings = await hubSettings(options);
  const fetchAll = (snapshot: Snapshot) => fetchSplits(snapshot, options);
  const attempts = await attemptsFor(nameOrPath);
  return await withSnapshot({ settings, kind: "dataset", id: nameOrPath }, fetchAll, { attempts });
}

const readmeFile = "README.md";

async function fetchSplits(snapshot: Snapshot, options: DatasetOptions): Promise<Record<string, string[]>> {
  const { files, origin, pathOf } = snapshot;
  const readmes = files.filter((file) => file === readmeFile);
  await snapshot.fetch(readmes);
  const readme = readmes.length > 0 ? await platform.readText(pathOf(readmeFile)) : undefined;
  const found = splitsOf(files, readme, options.config, origin);
  const { splits } = found;
  const wanted = options.splits ?? Object.keys(splits);
  const chosen = wanted.map((split): [string, readonly string[]] => {
    const members = Object.hasOwn(splits, split) ? splits[split] : undefined;
    if (members !== undefined) return [split, members];
    throw new ConfigError(`${origin} has no split "${split}"; it has ${Object.keys(splits).join(", ")}.`);
  });
  for (const warning of leftOutWarnings(found, wanted, origin)) (options.onWarning ?? console.warn)(warning);
  const needed = chosen.flatMap(([, members]) => members);
  const shard = incompleteShards(needed);
  if (shard !== undefined) {
    throw new FileError(`${origin} has ${shard}, but not all the files that are numbered with it.`);
  }
  await snapshot.fetch(needed);
  return Object.fromEntries(chosen.map(([split, members]) => [split, members.map(pathOf)]));
}
