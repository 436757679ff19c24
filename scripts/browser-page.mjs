/**
 * Builds examples/browser into a static folder that any host serves, and serves such a folder on this machine. Plain
 * JavaScript, as scripts/build.mjs is.
 */

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { build } from "esbuild";

const source = "examples/browser";
const model = "examples/quickstart/model";

/** Nothing from elsewhere, no script but the folder's own, no code made of text. A page's own tag cannot say the last part. */
const POLICY =
  "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'";

/** What a host had better send with each file: workers take their policy from there and not from the page. */
export const PAGE_HEADERS = {
  "content-security-policy": `${POLICY}; frame-ancestors 'none'`,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

/** Takes the platform for browsers where Node's would be, as package.json ("imports") has bundlers do. */
const browserPlatform = {
  name: "browser-platform",
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^\.\/node\.ts$/ }, ({ importer, resolveDir, kind }) =>
      importer.endsWith(join("platform", "index.ts")) ? resolve("./browser.ts", { resolveDir, kind }) : undefined,
    );
  },
};

/**
 * Writes the page, its worker, and the threads that the worker may start beside them, where `import.meta.url` finds them.
 *
 * @returns what esbuild tells of the files (its `metafile`)
 */
export async function buildBrowserPage(root, folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: {
      app: `${source}/main.tsx`,
      worker: `${source}/worker.ts`,
      "parquet-worker": "src/kto/data/parquet-worker.ts",
    },
    outdir: folder,
    bundle: true,
    minify: true,
    plugins: [browserPlatform],
    platform: "browser",
    format: "esm",
    target: "es2023",
    jsx: "automatic",
    jsxImportSource: "preact",
    charset: "utf8",
    legalComments: "inline",
    metafile: true,
    logLevel: "warning",
  });
  const page = readFileSync(join(root, source, "index.html"), "utf8");
  writeFileSync(join(folder, "index.html"), page.replace("%POLICY%", POLICY));
  cpSync(join(root, model), join(folder, "model"), { recursive: true });
  return metafile;
}

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
};

/**
 * Serves a folder on 127.0.0.1.
 *
 * @param port 0 for any that is free
 * @returns the address, and what ends it
 */
export async function serveFolder(folder, port) {
  const server = createServer((request, response) => {
    for (const [name, value] of Object.entries(PAGE_HEADERS)) response.setHeader(name, value);
    const { pathname } = new URL(request.url ?? "/", "http://127.0.0.1");
    const path = normalize(
      join(folder, decodeURIComponent(pathname.endsWith("/") ? `${pathname}index.html` : pathname)),
    );
    if (!path.startsWith(normalize(folder) + sep) || !existsSync(path) || !statSync(path).isFile()) {
      response.statusCode = 404;
      return response.end("There is no such file.\n");
    }
    response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
    return response.end(readFileSync(path));
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  };
  return { address: `http://127.0.0.1:${server.address().port}/`, close };
}
