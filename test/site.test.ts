/** The documentation's site, as far as it is no build: its menu has every page, and its links are rewritten rightly. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { addressOf, coming, groups } from "../scripts/site/pages.mjs";
import { staged } from "../scripts/site/stage.mjs";
import { docPages } from "./helpers/doc-commands.ts";

const root = join(import.meta.dirname, "..");
const listed = groups.flatMap(({ items }) => items.map(([, file]) => file));

test("the menu has each page of docs once, and no other but those that other work brings", () => {
  expect(new Set(listed).size).toBe(listed.length);
  const pages = docPages().filter((page) => page !== "README.md");
  expect(pages.filter((page) => !listed.includes(page.replace("docs/", "")))).toEqual([]);
  const missing = listed.filter((file) => !existsSync(join(root, "docs", file)));
  expect(missing.filter((file) => !coming.includes(file))).toEqual([]);
});

test("a page's address is its place, and README.md is its folder's page", () => {
  expect(addressOf("lora.md")).toBe("/lora");
  expect(addressOf("design/README.md")).toBe("/design/");
});

test("links to pages stay on the site; others lead to the repository, where that is known", () => {
  const text =
    "[a](b.md#c) [d](../README.md) [s](../src/x.ts) [w](https://example.org) `[i](j.md)` [`k`](design/README.md)";
  expect(staged(text, "docs/page.md", "ada/kto")).toBe(
    "[a](/b.md#c) [d](/index.md) [s](https://github.com/ada/kto/blob/main/src/x.ts) [w](https://example.org) `[i](j.md)` [`k`](/design/index.md)",
  );
  expect(staged("[s](../src/x.ts), ![p](pictures/q.svg)", "docs/page.md", undefined)).toBe("s, ![p](/pictures/q.svg)");
  expect(staged("```sh\n[a](b.md)\n```\n[a](../b.md)", "docs/design/x.md", undefined)).toBe(
    "```sh\n[a](b.md)\n```\n[a](/b.md)",
  );
});

test("what only the site needs is installed with neither the project nor its tests", () => {
  const json = (name: string) => JSON.parse(readFileSync(join(root, name), "utf8"));
  expect(json("package.json").workspaces).not.toContain("scripts/site");
  const packages = Object.keys(json("package-lock.json").packages);
  const own = Object.keys(json("scripts/site/package.json").devDependencies);
  expect(own).toContain("vitepress");
  for (const name of ["vitepress", "vue", "typedoc"]) expect(packages).not.toContain(`node_modules/${name}`);
});
