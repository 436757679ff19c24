/**
 * One file from the hub into the cache's blobs: resumed where an earlier attempt was cut, checked against the size and
 * digest that the hub names, put in place as a whole.
 *
 * Processes never write to the same file: each has an .incomplete file with its own name in it. One that is left behind
 * is taken over by renaming it, which only one process can do. Two that want a blob at once both download it.
 */
import { FileError } from "../../errors.ts";
import { bodyPieces } from "../platform/deadline.ts";
import { type GrowingFile, platform } from "../platform/index.ts";
import { isFileName, type RepositoryCache } from "./cache.ts";
import { checkAnswer, PassingFault, pageOf, type Repository, requestOnce, withRetries } from "./http.ts";
import type { HubSettings } from "./settings.ts";

/** What the hub says of a file. */
export interface RemoteFile {
  readonly name: string;
  readonly url: string;
  /** sha256 of a large file, git's blob hash of a small one; the blob's name. */
  readonly etag: string;
  readonly size: number | undefined;
}

/** As huggingface_hub writes them: without the mark of a weak one, without quotes. */
export function normalEtag(header: string | null): string | undefined {
  return header?.replace(/^W\//, "").replace(/^"|"$/g, "") || undefined;
}

/** @throws FileError for an answer that refuses or names no ETag; HubUnreachableError */
export async function describeRemote(
  settings: HubSettings,
  repository: Repository,
  commit: string,
  name: string,
): Promise<RemoteFile> {
  const path = name.split("/").map(encodeURIComponent).join("/");
  const url = `${pageOf(settings, repository)}/resolve/${commit}/${path}`;
  return await withRetries(settings, `ask for ${url}`, () =>
    requestOnce(settings, { url, method: "HEAD", stopAtDescription: true }, async (response) => {
      checkAnswer(settings, repository, response, name);
      const { headers, status } = response;
      const etag = normalEtag(headers.get("x-linked-etag") ?? headers.get("etag"));
      if (etag === undefined || !isFileName(etag)) {
        throw new FileError(
          `Cannot download ${url}: the answer names no ETag, so this is no Hugging Face hub; check HF_ENDPOINT.`,
        );
      }
      // The length of a redirect's own answer is not the file's.
      const size = headers.get("x-linked-size") ?? (status < 300 ? headers.get("content-length") : null);
      return { name, url, etag, size: size !== null && /^\d+$/.test(size) ? Number(size) : undefined };
    }),
  );
}

/**
 * Brings a file into the cache unless it is there.
 *
 * @param onBytes called with the bytes of this file on the disk, what was there before included
 * @returns the blob's path
 * @throws FileError for a file that cannot be written, that is damaged (it is then deleted), or whose length the server
 * gets wrong; HubUnreachableError
 */
export async function downloadBlob(
  settings: HubSettings,
  repository: Repository,
  cache: RepositoryCache,
  remote: RemoteFile,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const { files } = settings;
  const blob = platform.joinPath(cache.blobsFolder, remote.etag);
  if ((await platform.exists(blob)) === "file") return blob;
  await platform.makeFolder(cache.blobsFolder);
  const path = ownIncompletePath(settings, blob);
  await takeOverIncomplete(settings, cache.blobsFolder, remote.etag, path);
  const file = await files.openGrowing(path);
  try {
    try {
      onBytes(file.size);
      await fill(settings, repository, remote, file, onBytes);
    } finally {
      await file.close();
    }
    await checkDigest(settings, remote, path);
    await files.rename(path, blob);
  } catch (error) {
    // Whoever comes next goes on from here; nothing is there any more of a damaged one.
    if (file.size === 0) await platform.removeFile(path);
    else await files.rename(path, freePath(blob));
    throw error;
  }
  return blob;
}

let downloads = 0;

/** No other process, and no other call in this one, has this name. */
function ownIncompletePath({ files }: HubSettings, blob: string): string {
  return `${blob}.${files.processName}.${++downloads}.incomplete`;
}

/** The name of a piece that nobody is writing to. */
function freePath(blob: string): string {
  return `${blob}.free.incomplete`;
}

/** An unfinished file of unknown origin that has not grown for so long is nobody's. */
const abandonedAfterMs = 10 * 60_000;

/** Renames a piece that was left behind, if there is one, to `path`. */
async function takeOverIncomplete({ files }: HubSettings, folder: string, etag: string, path: string): Promise<void> {
  for (const name of await platform.list(folder)) {
    if (!name.startsWith(`${etag}.`) || !name.endsWith(".incomplete")) continue;
    const candidate = platform.joinPath(folder, name);
    const owner = name.slice(etag.length + 1, -".incomplete".length);
    const modified = await files.modifiedMs(candidate);
    const abandoned = modified !== undefined && Date.now() - modified > abandonedAfterMs;
    if (!abandoned && owner !== "free" && !files.hasEnded(owner)) continue;
    if (await files.rename(candidate, path)) return;
  }
}

/** An attempt that brought so much counts as none: slow lines are cut often. */
const bytesThatCount = 1 << 20;

/** Downloads what the file lacks, over as many connections as it takes. */
async function fill(
  settings: HubSettings,
  repository: Repository,
  remote: RemoteFile,
  file: GrowingFile,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { url, size, name } = remote;
  if (size !== undefined && file.size > size) await file.empty();
  if (size !== undefined && file.size === size) return;
  await withRetries(settings, `download ${url}`, async (gotOn) => {
    const before = file.size;
    const headers: Record<string, string> = before > 0 ? { Range: `bytes=${before}-` } : {};
    await requestOnce(settings, { url, method: "GET", headers }, async (response, signal, alive) => {
      if (response.status === 416) {
        await file.empty();
        throw new PassingFault(`the server has less of ${name} than the ${before} bytes that it sent before`);
      }
      checkAnswer(settings, repository, response, name);
      await placeAnswer(remote, file, response);
      for await (const piece of bodyPieces(response, signal)) {
        alive();
        await file.append(piece);
        // A wrong length is noticed here in both directions, or by the digest where no length was named.
        if (size !== undefined && file.size > size) {
          await file.empty();
          throw lengthError(remote, `more than the ${size} bytes`);
        }
        onBytes(file.size);
        if (file.size - before >= bytesThatCount) gotOn();
      }
      if (size !== undefined && file.size < size) {
        throw new PassingFault(`the connection ended after ${file.size} of ${size} bytes`);
      }
    });
  });
}

/** Makes the file end where the answer's body begins. */
async function placeAnswer({ url, size, ...remote }: RemoteFile, file: GrowingFile, response: Response): Promise<void> {
  if (response.status === 206) {
    const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "") ?? [];
    if (Number(start) !== file.size || (total !== "*" && size !== undefined && Number(total) !== size)) {
      const range = response.headers.get("content-range") ?? "no range";
      await file.empty();
      throw new PassingFault(`the server was asked to go on and sent ${range}`);
    }
    return;
  }
  if (response.status !== 200) throw new FileError(`Cannot download ${url}: HTTP ${response.status}.`);
  await file.empty();
  const length = response.headers.get("content-length");
  if (length !== null && size !== undefined && Number(length) !== size) {
    throw lengthError({ url, size, ...remote }, `${length} bytes in place of the ${size}`);
  }
}

function lengthError({ url }: RemoteFile, found: string): FileError {
  return new FileError(
    `Cannot download ${url}: the server sends ${found} that it had announced; a proxy or mirror is faulty, so try again later or set HF_ENDPOINT.`,
  );
}

/** A digest that is wrong deletes the file. ETags of other servers may be anything and are no digests. */
async function checkDigest({ files }: HubSettings, { url, etag }: RemoteFile, path: string): Promise<void> {
  const algorithm = /^[0-9a-f]{64}$/.test(etag) ? "sha256" : /^[0-9a-f]{40}$/.test(etag) ? "sha1" : undefined;
  if (algorithm === undefined) return;
  let prefix = "";
  if (algorithm === "sha1") {
    const file = await platform.openFile(path);
    prefix = `blob ${file.size}\0`;
    await file.close();
  }
  const found = await files.digest(path, algorithm, prefix);
  if (found === etag) return;
  await platform.removeFile(path);
  throw new FileError(
    `The download of ${url} is damaged and was deleted: its ${algorithm} is ${found}, but the hub says ${etag}; run the command again.`,
  );
}
