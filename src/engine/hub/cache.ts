/**
 * The layout of huggingface_hub's cache: models--owner--name/ with blobs/ (files by ETag), refs/ (a revision's commit)
 * and snapshots/ (a commit's files as links to blobs). Each of the two programs can use what the other has downloaded.
 */
import { FileError } from "../../errors.ts";
import { platform } from "../platform/index.ts";
import type { Repository } from "./http.ts";

/** The part of the cache that holds one repository. */
export class RepositoryCache {
  readonly repository: Repository;
  readonly folder: string;

  constructor(repository: Repository) {
    const { settings, kind, id } = repository;
    this.repository = repository;
    this.folder = platform.joinPath(settings.cacheFolder, `${kind}s--${id.replaceAll("/", "--")}`);
  }

  get blobsFolder(): string {
    return platform.joinPath(this.folder, "blobs");
  }

  snapshot(commit: string): string {
    return platform.joinPath(this.folder, "snapshots", commit);
  }

  /** The path of a file of a commit, whether or not the file exists. */
  pathOf(commit: string, file: string): string {
    return platform.joinPath(this.snapshot(commit), ...file.split("/"));
  }

  /** The commit that the revision was when it was last downloaded, if the commit's folder still exists. */
  async cachedCommit(): Promise<string | undefined> {
    const { revision } = this.repository.settings;
    const ref = platform.joinPath(this.folder, "refs", ...revision.split("/"));
    const commit = (await platform.exists(ref)) === "file" ? (await platform.readText(ref)).trim() : revision;
    if (!isFileName(commit) || (await platform.exists(this.snapshot(commit))) !== "folder") return undefined;
    return commit;
  }

  /** Stores which commit the revision is. A revision that is itself a commit needs no such entry. */
  async writeRef(commit: string): Promise<void> {
    const { revision } = this.repository.settings;
    if (revision === commit) return;
    const parts = revision.split("/");
    const ref = platform.joinPath(this.folder, "refs", ...parts);
    if ((await platform.exists(ref)) === "file" && (await platform.readText(ref)) === commit) return;
    await platform.makeFolder(platform.joinPath(this.folder, "refs", ...parts.slice(0, -1)));
    await platform.writeFileAtomic(ref, commit);
  }

  /** Puts a blob into a snapshot under the repository's name for it. */
  async link(blob: string, commit: string, file: string): Promise<void> {
    await platform.makeFolder(platform.joinPath(this.snapshot(commit), ...file.split("/").slice(0, -1)));
    await this.repository.settings.files.linkOrCopy(blob, this.pathOf(commit, file));
  }

  /** Every file of a snapshot, as the repository names it, sorted. */
  async filesOf(commit: string): Promise<string[]> {
    return await filesBelow(this.snapshot(commit));
  }
}

/** The files of a folder and of the folders in it, as paths relative to it with "/", sorted. */
export async function filesBelow(folder: string, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for (const name of await platform.list(folder)) {
    const path = platform.joinPath(folder, name);
    const kind = await platform.exists(path);
    if (kind === "folder") found.push(...(await filesBelow(path, `${prefix}${name}/`)));
    else if (kind === "file") found.push(`${prefix}${name}`);
  }
  return found.sort();
}

/** Names from a server become paths on this machine, so no name may lead out of its folder. */
export function checkRepositoryPath(file: string, where: string): string {
  if (file.split("/").every(isFileName)) return file;
  throw new FileError(`${where} lists a file named ${JSON.stringify(file)}, whose name could lead out of its folder.`);
}

export function isFileName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !/[/\\:\p{Cc}]/u.test(name);
}
