/** What the fuzzer is told of a kind of file. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FileForm } from "./mutations.ts";

export interface FuzzKind {
  /** Fills a folder with good files. */
  readonly prepare: (folder: string) => Promise<void> | void;
  /** The files to damage; one is, or several of one kind of content. */
  readonly files: Readonly<Record<string, FileForm>>;
  /** Reads the folder, of which one file is damaged. */
  readonly read: (folder: string, damaged: string) => Promise<unknown>;
}

/** Writes files into a folder. */
export const write = (folder: string, files: Readonly<Record<string, string | Uint8Array>>) => {
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
};
