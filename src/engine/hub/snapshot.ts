/**
 * One commit of a repository: which files it has, and how those that are needed come to this machine. They come from
 * the hub, or from the cache alone when offline or when the hub cannot be reached.
 */
import { FileError, shown } from "../../errors.ts";
import { bodyText } from "../platform/deadline.ts";
import { platform } from "../platform/index.ts";
import { checkRepositoryPath, isFileName, RepositoryCache } from "./cache.ts";
import { describeRemote, downloadBlob, type RemoteFile } from "./download.ts";
import { checkAnswer, HubUnreachableError, type Repository, requestOnce, withRetries } from "./http.ts";
import type { HubSettings } from "./settings.ts";

export interface Snapshot {
  /** The local folder that holds the files once they are fetched. */
  readonly folder: string;
  /** Names the place that the files come from in messages. */
  readonly origin: string;
  /** Whether only files that were downloaded earlier are available. */
  readonly isCached: boolean;
  /** All files that are available, as the repository names them, sorted. */
  readonly files: readonly string[];
  /** Brings files into the folder, unless they are there. */
  readonly fetch: (names: readonly string[]) => Promise<void>;
  /** The local path of a file. */
  readonly pathOf: (name: string) => string;
}

/**
 * Lets `use` fetch what it needs from the revision that the settings name. If the hub cannot be reached, it warns and
 * runs `use` again on the cached files of the commit that the revision was when it was last downloaded.
 *
 * @param options.partial whether `use` fetches less than others need, so that the commit that is complete in the cache
 *   stays the one to fall back on
 * @param options.attempts how often the hub is asked for the repository at most; default as the settings have it
 * @throws FileError for a repository, revision or file that is not available; what `use` throws
 */
export async function withSnapshot<T>(
  settings: HubSettings,
  repository: Repository,
  use: (snapshot: Snapshot) => Promise<T>,
  { partial = false, attempts }: { readonly partial?: boolean; readonly attempts?: number | undefined } = {},
): Promise<T> {
  const cache = new RepositoryCache(settings, repository);
  const commit = await cache.cachedCommit();
  const what = `the ${repository.kind} "${repository.id}"`;
  if (settings.offline) {
    if (commit !== undefined) return await use(await cachedSnapshot(cache, commit));
    throw new FileError(
      `The hub is offline (HF_HUB_OFFLINE), and ${what} is neither a local path nor, in revision "${settings.revision}", in the cache ${settings.cacheFolder}; run once online.`,
    );
  }
  try {
    const { commit: current, files } = await listRepository(settings, repository, commit !== undefined, attempts);
    const result = await use(new RemoteSnapshot(settings, repository, cache, current, files));
    // Last, so that the revision stands for the earlier, complete commit until everything has arrived.
    if (!partial || commit === undefined) await cache.writeRef(current);
    return result;
  } catch (error) {
    if (!(error instanceof HubUnreachableError) || commit === undefined) throw error;
    const result = await cachedSnapshot(cache, commit)
      .then(use)
      .catch(() => Promise.reject(error));
    settings.onWarning(`${error.message.replace(/;[^;]*$/, "")}; the cached copy of ${what} is used.`);
    return result;
  }
}

async function cachedSnapshot(cache: RepositoryCache, commit: string): Promise<Snapshot> {
  const folder = cache.snapshot(commit);
  return {
    folder,
    origin: `the cached copy ${folder}`,
    isCached: true,
    files: await cache.filesOf(commit),
    // `files` lists only files that are here.
    fetch: async () => undefined,
    pathOf: (name) => cache.pathOf(commit, name),
  };
}

class RemoteSnapshot implements Snapshot {
  readonly folder: string;
  readonly origin: string;
  readonly isCached = false;
  readonly files: readonly string[];
  readonly #settings: HubSettings;
  readonly #repository: Repository;
  readonly #cache: RepositoryCache;
  readonly #commit: string;
  /** Bytes of the finished files, and of all files that were asked for. */
  #doneBytes = 0;
  #totalBytes = 0;

  constructor(
    settings: HubSettings,
    repository: Repository,
    cache: RepositoryCache,
    commit: string,
    files: readonly string[],
  ) {
    this.#settings = settings;
    this.#repository = repository;
    this.#cache = cache;
    this.#commit = commit;
    this.folder = cache.snapshot(commit);
    this.origin = `"${repository.id}" on ${settings.endpoint}`;
    this.files = files;
  }

  readonly pathOf = (name: string): string => this.#cache.pathOf(this.#commit, name);

  readonly fetch = async (names: readonly string[]): Promise<void> => {
    const missing: RemoteFile[] = [];
    for (const name of names) {
      // Checked here and not for the whole listing: files that stay on the hub may have any name.
      checkRepositoryPath(name, this.origin);
      if ((await platform.exists(this.pathOf(name))) === "file") continue;
      const remote = await describeRemote(this.#settings, this.#repository, this.#commit, name);
      missing.push(remote);
      this.#totalBytes += remote.size ?? 0;
    }
    for (const remote of missing) {
      let bytes = 0;
      const blob = await downloadBlob(this.#settings, this.#repository, this.#cache, remote, (now) => {
        bytes = now;
        const progress = { bytes: this.#doneBytes + bytes, totalBytes: this.#totalBytes };
        this.#settings.onProgress({ file: remote.name, ...progress });
      });
      this.#doneBytes += remote.size ?? bytes;
      await this.#cache.link(blob, this.#commit, remote.name);
    }
  };
}

/** Room for the names of half a million files. */
const mostListingBytes = 2 ** 25;
/** Attempts when there is a cached copy to fall back on. */
const attemptsWithCache = 2;

async function listRepository(
  settings: HubSettings,
  repository: Repository,
  cached: boolean,
  mostAttempts = cached ? attemptsWithCache : settings.patience.attempts,
): Promise<{ commit: string; files: string[] }> {
  const { kind, id } = repository;
  const url = `${settings.endpoint}/api/${kind}s/${id}/revision/${encodeURIComponent(settings.revision)}`;
  const { patience } = settings;
  const attempts = Math.min(mostAttempts, patience.attempts);
  const what = `ask ${settings.endpoint} for the ${kind} "${id}"${cached ? "" : ", which is neither a local path nor in the cache"}`;
  return await withRetries({ patience: { ...patience, attempts } }, what, () =>
    requestOnce(settings, { url, method: "GET" }, async (response, signal, alive) => {
      checkAnswer(settings, repository, response);
      const { text, isCut } = await bodyText(response, mostListingBytes, signal, alive);
      const listing = isCut ? undefined : parseListing(text);
      if (listing !== undefined) return listing;
      const reason = isCut ? `its answer is longer than ${mostListingBytes} bytes` : `it answers ${shown(text, 80)}`;
      throw new FileError(`${url} does not answer as a Hugging Face hub does (${reason}); check HF_ENDPOINT.`);
    }),
  );
}

function parseListing(text: string): { commit: string; files: string[] } | undefined {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof answer !== "object" || answer === null || !("sha" in answer) || !("siblings" in answer)) return undefined;
  const { sha, siblings } = answer;
  if (typeof sha !== "string" || !isFileName(sha) || !Array.isArray(siblings)) return undefined;
  const files = siblings.map((sibling: unknown) =>
    typeof sibling === "object" && sibling !== null && "rfilename" in sibling ? sibling.rfilename : undefined,
  );
  if (!files.every((file) => typeof file === "string")) return undefined;
  return { commit: sha, files: files.sort() };
}
