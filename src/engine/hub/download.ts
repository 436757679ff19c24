/**
 * Downloads one file from the hub into the cache's blobs: goes on where an earlier attempt was cut, checks the size and
 * the digest that the hub names, and puts the file in place as a whole.
 *
 * No two processes write to the same file: each has an .incomplete file with its own name in it. A process takes over a
 * file that another has left behind by renaming it, which only one process can do. Two processes that want a blob at
 * the same time both download it.
 */
import { FileError } from "../../errors.ts";
import { bodyPieces } from "../platform/deadline.ts";
import { type CacheFiles, type GrowingFile, platform } from "../platform/index.ts";
import { isFileName, type RepositoryCache } from "./cache.ts";
import { checkResponse, PassingFault, pageOf, type Repository, requestOnce, withRetries } from "./http.ts";

/** A file as the hub describes it. */
export interface RemoteFile {
  readonly name: string;
  readonly url: string;
  /** The sha256 of a large file, git's blob hash of a small one; also the name of the blob. */
  readonly etag: string;
  readonly size: number | undefined;
}

/** An ETag as huggingface_hub writes it: without quotes and without the mark of a weak one. */
export function normalEtag(header: string | null): string | undefined {
  return header?.replace(/^W\//, "").replace(/^"|"$/g, "") || undefined;
}

/** @throws FileError for a refusal and for an answer without an ETag; HubUnreachableError */
export async function describeRemote(repository: Repository, commit: string, name: string): Promise<RemoteFile> {
  const { settings } = repository;
  const path = name.split("/").map(encodeURIComponent).join("/");
  const url = `${pageOf(repository)}/resolve/${commit}/${path}`;
  return await withRetries(settings, `ask for ${url}`, () =>
    requestOnce(settings, { url, method: "HEAD", stopAtDescription: true }, async (response) => {
      checkResponse(repository, response, name);
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
 * @param onBytes is called with the bytes of this file on the disk, earlier attempts included
 * @returns the path of the blob
 * @throws FileError for a file that cannot be written, that arrives damaged (it is then deleted), with another length
 *   than was announced, or too long where none was; HubUnreachableError
 */
export async function downloadBlob(
  cache: RepositoryCache,
  remote: RemoteFile,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const { files } = cache.repository.settings;
  const blob = platform.joinPath(cache.blobsFolder, remote.etag);
  if ((await platform.exists(blob)) === "file") return blob;
  await platform.makeFolder(cache.blobsFolder);
  // A name that no other process, and no other call in this process, uses.
  const path = `${blob}.${files.processName}.${++downloads}.incomplete`;
  await takeOverIncomplete(files, cache.blobsFolder, remote.etag, path);
  const file = await files.openGrowing(path);
  try {
    try {
      onBytes(file.size);
      await fill(cache.repository, remote, file, onBytes);
    } finally {
      await file.close();
    }
    await checkDigest(files, remote, path);
    await files.rename(path, blob);
  } catch (error) {
    // The next attempt, of whatever process, goes on from here. Of a damaged file nothing is left.
    if (file.size === 0) await platform.removeFile(path);
    else await files.rename(path, `${blob}.free.incomplete`);
    throw error;
  }
  return blob;
}

let downloads = 0;

/** An unfinished file of unknown origin is taken over when it has not grown for this long. */
const abandonedAfterMs = 10 * 60_000;

/** Renames an unfinished file that was left behind, if there is one, to `path`. */
async function takeOverIncomplete(files: CacheFiles, folder: string, etag: string, path: string): Promise<void> {
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

/**
 * The largest file whose length neither the hub nor the answer states. The hub keeps files of more than 10 MiB in its
 * large storage and states their size, so that no more than this comes from a sound server.
 */
const MOST_UNSTATED_BYTES = 64 * 2 ** 20;

/** An attempt that brings this many bytes is not counted, since slow connections are cut often. */
const bytesThatCount = 1 << 20;

/** Downloads the missing rest of the file, over as many connections as it takes. */
async function fill(
  repository: Repository,
  remote: RemoteFile,
  file: GrowingFile,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { settings } = repository;
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
      checkResponse(repository, response, name);
      await placeAnswer(remote, file, response);
      const unstated = size === undefined && response.headers.get("content-length") === null;
      for await (const piece of bodyPieces(response, signal)) {
        alive();
        await file.append(piece);
        if (unstated && file.size > MOST_UNSTATED_BYTES) {
          await file.empty();
          throw new FileError(
            `Cannot download ${url}: its server does not say how long the file is and sends more than ${MOST_UNSTATED_BYTES / 2 ** 20} MiB; a proxy or mirror is faulty, so set HF_ENDPOINT to another one.`,
          );
        }
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

/** Makes the file end at the byte where the body of the answer begins. */
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

/** Deletes the file if its digest is wrong. ETags of other forms, as other servers have them, are no digests. */
async function checkDigest(files: CacheFiles, { url, etag }: RemoteFile, path: string): Promise<void> {
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
