/**
 * The sources that `dist` is made of, and whether it is made of them as they are now. Apart from build.mjs and no ES
 * module, since every command in a checkout asks this first.
 */
"use strict";
const { existsSync, readdirSync, readFileSync, statSync } = require("node:fs");
const { join } = require("node:path");

/** Where sources lie: of the bench what `kto bench` runs (all else there needs a checkout). */
const folders = ["src", "bench", "bench/kernels", "bench/measure"];
const single = ["bench/peers/run.ts"];
/** Of these, what only has the files directly in it. */
const flat = ["bench"];

/** The dashboard's page, which is bundled into one script and one style sheet and is no module of the rest. */
const page = "src/dashboard/page";

/** Whether the JavaScript in `dist` is that of the sources as they are now. An installed package has no sources. */
function isCodeBuilt(root) {
  const mark = join(root, "dist", ".code");
  return existsSync(mark) && readFileSync(mark, "utf8") === stateOf(root, sourcesOf(root));
}

/** Paths from the project's folder, with "/". */
function sourcesOf(root) {
  const found = folders.flatMap((folder) => sourcesIn(root, folder, !flat.includes(folder)));
  const modules = found.filter((path) => !path.startsWith(`${page}/`));
  return [...new Set([...modules, ...single.filter((name) => existsSync(join(root, name)))])];
}

function sourcesIn(root, folder, deep) {
  if (!existsSync(`${root}/${folder}`)) return [];
  return readdirSync(`${root}/${folder}`, { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return deep ? sourcesIn(root, path, true) : [];
    return path.endsWith(".ts") ? [path] : [];
  });
}

/** Names, sizes and times of files, by which a change is noticed, also one that brings an older file. Every command asks. */
function stateOf(root, files) {
  let state = "";
  const ofPage = existsSync(`${root}/${page}`) ? readdirSync(`${root}/${page}`).map((name) => `${page}/${name}`) : [];
  for (const path of ["scripts/build.mjs", "scripts/sources.cjs", ...ofPage, ...files]) {
    const { size, mtimeMs } = statSync(`${root}/${path}`);
    state += `${path} ${size} ${mtimeMs}\n`;
  }
  return state;
}

module.exports = { isCodeBuilt, page, sourcesOf, stateOf };
