import type { Metafile } from "esbuild";

export const PAGE_HEADERS: Readonly<Record<string, string>>;
export function buildBrowserPage(root: string, folder: string): Promise<Metafile>;
export function serveFolder(
  folder: string,
  port: number,
): Promise<{ readonly address: string; readonly close: () => Promise<void> }>;
