/**
 * One commit of a repository: which files it has, and how those that are needed come to this machine. They come from
 * the hub, or from the cache alone when offline or when the hub cannot be reached.
 */
import * as z from "zod";
import { FileError, shown } from "../../errors.ts";
import { bodyText } from "../platform/deadline.ts";
import { platform, type ReadableFile } from "../platform/index.ts";
import { checkRepositoryPath, isFileName, RepositoryCache } from "./cache.ts";
import { describeRemote, downloadBlob, type RemoteFile } from "./download.ts";
import { checkResponse, HubUnreachableError, type Repository, requestOnce, withRetries } from "./http.ts";
import { openRemote } from "./remote-file.ts";

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
  /** Opens a file where it is: in the folder, or on the hub, from which it is not downloaded. */
  readonly open: (name: string) => Promise<ReadableFile>;
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
  repository: Repository,
  use: (snapshot: Snapshot) => Promise<T>,
  { partial = false, attempts }: { readonly partial?: boolean; readonly attempts?: number | undefined } = {},
): Promise<T> {
  const { settings } = repository;
  const cache = new RepositoryCache(repository);
  const commit = await cache.cachedCommit();
  const what = `the ${repository.kind} "${repository.id}"`;
  if (settings.offline) {
    if (commit !== undefined) return await use(await cachedSnapshot(cache, commit));
    throw new FileError(
      `The hub is offline (HF_HUB_OFFLINE), and ${what} is neither a local path nor, in revision "${settings.revision}", in the cache ${settings.cacheFolder}; run once online.`,
    );
  }
  try {
    const { commit: current, files } = await listRepository(repository, commit !== undefined, attempts);
    const result = await use(remoteSnapshot(cache, current, files));
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
    open: (name) => platform.openFile(cache.pathOf(commit, name)),
  };
}

function remoteSnapshot(cache: RepositoryCache, commit: string, files: readonly string[]): Snapshot {
  const { settings, id } = cache.repository;
  const origin = `"${id}" on ${settings.endpoint}`;
  const pathOf = (name: string) => cache.pathOf(commit, name);
  /** Bytes of the finished files, and of all files that were asked for. */
  let [doneBytes, totalBytes] = [0, 0];
  const fetch = async (names: readonly string[]) => {
    const missing: RemoteFile[] = [];
    for (const name of names) {
      // Checked here and not for the whole listing: files that stay on the hub may have any name.
      checkRepositoryPath(name, origin);
      if ((await platform.exists(pathOf(name))) === "file") continue;
      const remote = await describeRemote(cache.repository, commit, name);
      missing.push(remote);
      totalBytes += remote.size ?? 0;
    }
    for (const remote of missing) {
      let bytes = 0;
      const blob = await downloadBlob(cache, remote, (now) => {
        bytes = now;
        settings.onProgress({ file: remote.name, bytes: doneBytes + bytes, totalBytes });
      });
      doneBytes += remote.size ?? bytes;
      await cache.link(blob, commit, remote.name);
    }
  };
  const open = async (name: string) =>
    (await platform.exists(pathOf(name))) === "file"
      ? await platform.openFile(pathOf(name))
      : await openRemote(cache.repository, commit, name);
  return { folder: cache.snapshot(commit), origin, isCached: false, files, fetch, pathOf, open };
}

/** Room for the names of half a million files. */
const mostListingBytes = 2 ** 25;
/** Attempts when there is a cached copy to fall back on. */
const attemptsWithCache = 2;

async function listRepository(
  repository: Repository,
  cached: boolean,
  mostAttempts = cached ? attemptsWithCache : repository.settings.patience.attempts,
): Promise<{ commit: string; files: string[] }> {
  const { settings, kind, id } = repository;
  const url = `${settings.endpoint}/api/${kind}s/${id}/revision/${encodeURIComponent(settings.revision)}`;
  const { patience } = settings;
  const attempts = Math.min(mostAttempts, patience.attempts);
  const what = `ask ${settings.endpoint} for the ${kind} "${id}"${cached ? "" : ", which is neither a local path nor in the cache"}`;
  return await withRetries({ patience: { ...patience, attempts } }, what, () =>
    requestOnce(settings, { url, method: "GET" }, async (response, signal, alive) => {
      checkResponse(repository, response);
      const { text, isCut } = await bodyText(response, mostListingBytes, signal, alive);
      const listing = isCut ? undefined : parseListing(text);
      if (listing !== undefined) return listing;
      const reason = isCut ? `its answer is longer than ${mostListingBytes} bytes` : `it answers ${shown(text, 80)}`;
      throw new FileError(`${url} does not answer as a Hugging Face hub does (${reason}); check HF_ENDPOINT.`);
    }),
  );
}

const listingAnswer = z.object({
  sha: z.string().refine(isFileName),
  siblings: z.array(z.object({ rfilename: z.string() })),
});

function parseListing(text: string): { commit: string; files: string[] } | undefined {
  try {
    const { sha, siblings } = listingAnswer.parse(JSON.parse(text));
    return { commit: sha, files: siblings.map(({ rfilename }) => rfilename).sort() };
  } catch {
    return undefined;
  }
}
