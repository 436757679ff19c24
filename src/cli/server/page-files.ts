/**
 * The files of the dashboard's page, as they were built from src/dashboard/page, and the headers that keep the page to
 * itself: it loads nothing from elsewhere, runs no script but its own, and is shown in no other page.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { packageFolder } from "../../engine/platform/node-package.ts";
import { FileError } from "../../errors.ts";

export interface PageFile {
  readonly type: string;
  readonly content: string | Uint8Array;
}

export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

const HTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>kto dashboard</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/app.css">
<script type="module" src="/app.js"></script>
</head>
<body><div id="app"><noscript>The dashboard needs JavaScript.</noscript></div></body>
</html>
`;

/** @throws FileError where the page was not built */
export async function pageFiles(): Promise<ReadonlyMap<string, PageFile>> {
  const built = async (name: string) => {
    const path = join(packageFolder, "dist", "dashboard", name);
    try {
      return await readFile(path);
    } catch (error) {
      throw new FileError(`The dashboard's page is not built (${path}); run npm run build.`, { cause: error });
    }
  };
  return new Map<string, PageFile>([
    ["/", { type: "text/html; charset=utf-8", content: HTML }],
    ["/app.js", { type: "text/javascript; charset=utf-8", content: await built("app.js") }],
    ["/app.css", { type: "text/css; charset=utf-8", content: await built("app.css") }],
  ]);
}
