/**
 * `npm run docs:build` makes the documentation's site, a folder of static files, in out/site: installs what only the
 * site needs (scripts/site/package.json), copies docs/ beside it, has TypeDoc write a page for each name of the public
 * surface, and builds with VitePress, which ends with an error for a link that leads nowhere.
 *
 * GITHUB_REPOSITORY ("owner/name") makes links to sources lead to GitHub; SITE_BASE ("/name/") is the path under which
 * the site is served.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { staged } from "./stage.mjs";

const folder = dirname(fileURLToPath(import.meta.url));
const root = join(folder, "..", "..");
/** In the site's own folder, from where its pages find the packages. */
const pages = join(folder, ".cache", "pages");
const repository = process.env.GITHUB_REPOSITORY || undefined;

install();
stagePages();
makeApi();
tool("vitepress", "bin/vitepress.js", ["build", folder], folder);
console.log("The site is in out/site.");

/** npm ci, unless the packages are those of the lock already. */
function install() {
  const lock = readFileSync(join(folder, "package-lock.json"), "utf8");
  const mark = join(folder, "node_modules", ".installed");
  if (existsSync(mark) && readFileSync(mark, "utf8") === lock) return;
  run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], folder);
  writeFileSync(mark, lock);
}

function stagePages() {
  rmSync(pages, { recursive: true, force: true });
  mkdirSync(pages, { recursive: true });
  const docs = join(root, "docs");
  for (const name of readdirSync(docs, { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".md")) continue;
    write(
      name.replace(/README\.md$/, "index.md"),
      staged(readFileSync(join(docs, name), "utf8"), `docs/${name}`, repository),
    );
  }
  cpSync(join(docs, "pictures"), join(pages, "pictures"), { recursive: true });
  write("index.md", readFileSync(join(folder, "home.md"), "utf8"));
  write("changelog.md", staged(readFileSync(join(root, "CHANGELOG.md"), "utf8"), "CHANGELOG.md", repository));
}

function write(name, text) {
  mkdirSync(dirname(join(pages, name)), { recursive: true });
  writeFileSync(join(pages, name), text);
}

/** What programs import, from the docstrings. */
function makeApi() {
  const options = [
    ...["--plugin", "typedoc-plugin-markdown", "--entryPoints", "src/index.ts", "--tsconfig", "tsconfig.json"],
    ...["--out", join(pages, "api"), "--entryFileName", "index", "--readme", "none", "--name", "API"],
    ...["--excludePrivate", "--excludeInternal", "--disableSources", "--hideBreadcrumbs", "--hidePageHeader"],
    ...["--sanitizeComments", "--logLevel", "Warn", "--skipErrorChecking"],
    // Of types that programs only pass on, the names are enough.
    ...["--validation.notExported", "false"],
  ];
  tool("typedoc", "bin/typedoc", options, root);
}

function tool(name, script, words, from) {
  run(process.execPath, [join(folder, "node_modules", name, script), ...words], from);
}

function run(program, words, from) {
  const shell = program === "npm" && process.platform === "win32";
  const { status, error } = spawnSync(program, words, { cwd: from, stdio: "inherit", shell });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? 1);
}
