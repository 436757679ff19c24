/**
 * The settings of the hub: its address, its cache, its token, and how patiently it is asked. They come from the
 * options, else from the environment variables of huggingface_hub, else from its defaults, so that both programs share
 * one cache.
 */
import { ConfigError, FileError } from "../../errors.ts";
import { type CacheFiles, platform } from "../platform/index.ts";

/** How often and how long a request is tried. */
export interface HubPatience {
  /** Attempts in all, without those that made progress; 5 by default. */
  readonly attempts: number;
  /** Wait before the second attempt, doubled before each later one; 1000 by default. */
  readonly firstDelayMs: number;
  /** The longest wait, a server's Retry-After included; 60000 by default. */
  readonly longestDelayMs: number;
  /** A connection that brings no byte for this long is given up; 30000, or HF_HUB_DOWNLOAD_TIMEOUT in seconds. */
  readonly stallMs: number;
}

export interface DownloadProgress {
  /** The file that is being downloaded, as the repository names it. */
  readonly file: string;
  /** Bytes on the disk so far, of all files that this call has to download. */
  readonly bytes: number;
  /** Bytes of all files that are known to be needed. */
  readonly totalBytes: number;
}

export interface HubOptions {
  /** Branch, tag, commit or "refs/pr/1"; "main" by default. */
  readonly revision?: string | undefined;
  /** Instead of HF_TOKEN and the token file. */
  readonly token?: string | undefined;
  /** Instead of HF_ENDPOINT. */
  readonly endpoint?: string | undefined;
  /** Instead of HF_HUB_CACHE. */
  readonly cacheFolder?: string | undefined;
  /** Instead of HF_HUB_OFFLINE. */
  readonly offline?: boolean | undefined;
  readonly patience?: Partial<HubPatience> | undefined;
  /** Called for every piece that arrives. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Called with a sentence for the user when something other than asked for is done, such as using the cached copy. */
  readonly onWarning?: ((sentence: string) => void) | undefined;
}

/** HubOptions with every value filled in. */
export interface HubSettings {
  readonly files: CacheFiles;
  readonly revision: string;
  readonly token: string | undefined;
  /** Does not end in a slash. */
  readonly endpoint: string;
  readonly cacheFolder: string;
  readonly offline: boolean;
  readonly patience: HubPatience;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly onWarning: (sentence: string) => void;
}

const defaultPatience: HubPatience = { attempts: 5, firstDelayMs: 1000, longestDelayMs: 60_000, stallMs: 30_000 };

/**
 * @throws FileError if the host has no file system for a cache; ConfigError if the endpoint is no http or https
 * address, or
 *   if the revision cannot be a branch, a tag or a commit
 */
export async function hubSettings(options: HubOptions): Promise<HubSettings> {
  const files = platform.cacheFiles;
  if (files === undefined) {
    throw new FileError(
      'A web page cannot keep a cache of Hugging Face downloads; put the files into its private file system and give that path, "opfs:...".',
    );
  }
  const set = (name: string) => platform.environment(name)?.trim() || undefined;
  const withHome = (path: string) =>
    path === "~" || path.startsWith("~/") ? platform.joinPath(platform.homeFolder(), path.slice(1)) : path;
  const home = withHome(
    set("HF_HOME") ??
      platform.joinPath(set("XDG_CACHE_HOME") ?? platform.joinPath(platform.homeFolder(), ".cache"), "huggingface"),
  );
  const cacheFolder =
    options.cacheFolder ?? set("HF_HUB_CACHE") ?? set("HUGGINGFACE_HUB_CACHE") ?? platform.joinPath(home, "hub");
  const seconds = Number(set("HF_HUB_DOWNLOAD_TIMEOUT"));
  return {
    files,
    revision: checkRevision(options.revision ?? "main"),
    token: options.token ?? set("HF_TOKEN") ?? set("HUGGING_FACE_HUB_TOKEN") ?? (await tokenOfFile(home)),
    endpoint: checkEndpoint(options.endpoint ?? set("HF_ENDPOINT") ?? "https://huggingface.co"),
    cacheFolder: withHome(cacheFolder),
    offline: options.offline ?? ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].some((name) => isOn(set(name))),
    patience: {
      ...defaultPatience,
      ...(seconds > 0 ? { stallMs: 1000 * seconds } : {}),
      ...options.patience,
    },
    onProgress: options.onProgress ?? (() => undefined),
    onWarning: options.onWarning ?? (() => undefined),
  };

  async function tokenOfFile(folder: string): Promise<string | undefined> {
    const path = withHome(set("HF_TOKEN_PATH") ?? platform.joinPath(folder, "token"));
    if ((await platform.exists(path)) !== "file") return undefined;
    return (await platform.readText(path)).trim() || undefined;
  }
}

/** Whether a variable holds one of the words that huggingface_hub reads as yes. */
function isOn(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes(value?.toUpperCase() ?? "");
}

function checkEndpoint(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url?.protocol !== "https:" && url?.protocol !== "http:") {
    throw new ConfigError(`HF_ENDPOINT is "${endpoint}"; it must be the http or https address of a hub.`);
  }
  return endpoint.replace(/\/+$/, "");
}

/** The revision becomes a file name under refs/, so it may not lead elsewhere. */
function checkRevision(revision: string): string {
  if (/^[\w.+@-]+(\/[\w.+@-]+)*$/.test(revision) && !revision.split("/").some((part) => /^\.{1,2}$/.test(part))) {
    return revision;
  }
  throw new ConfigError(`The revision "${revision}" cannot be one: give a branch, a tag or a commit.`);
}
