/** Files that a visitor dropped or chose, with their paths inside their folder. */
import type { GivenFile } from "../../src/browser.ts";

export interface GivenFolder {
  readonly name: string;
  readonly model: readonly GivenFile[];
}

/** A folder that was chosen: paths begin with its name. */
export function filesOfFolder(chosen: FileList | null): GivenFolder[] {
  const files = [...(chosen ?? [])];
  const name = files[0]?.webkitRelativePath.split("/", 1)[0];
  if (name === undefined) return [];
  return [{ name, model: files.map((file): GivenFile => [file.webkitRelativePath.slice(name.length + 1), file]) }];
}

/** What was dropped. Entries are to be asked for before anything is waited for. */
export async function filesOfDrop(
  data: DataTransfer,
): Promise<{ readonly folders: readonly GivenFolder[]; readonly files: readonly GivenFile[] }> {
  const entries = [...data.items].flatMap((item) => item.webkitGetAsEntry() ?? []);
  const [folders, files]: [GivenFolder[], GivenFile[]] = [[], []];
  for (const entry of entries) {
    if (isFolder(entry)) folders.push({ name: entry.name, model: await filesIn(entry, "") });
    else if (isFile(entry)) files.push([entry.name, await fileOf(entry)]);
  }
  return { folders, files };
}

function isFolder(entry: FileSystemEntry): entry is FileSystemDirectoryEntry {
  return entry.isDirectory;
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile;
}

async function filesIn(folder: FileSystemDirectoryEntry, path: string): Promise<GivenFile[]> {
  const reader = folder.createReader();
  const found: GivenFile[] = [];
  for (;;) {
    // A reader gives a hundred entries at a time, and none when there are no more.
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return found;
    for (const entry of entries) {
      if (isFolder(entry)) found.push(...(await filesIn(entry, `${path}${entry.name}/`)));
      else if (isFile(entry)) found.push([`${path}${entry.name}`, await fileOf(entry)]);
    }
  }
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}
