/**
 * README.md and docs/: links lead somewhere, commands have the options that they are shown with, code that is shown is that
 * of its file, pages stay readable. That the commands run is shown by documentation/commands.test.ts.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { blocksOf, commandsOf, docPages } from "./helpers/doc-commands.ts";
import { kto } from "./helpers/streams.ts";

const root = join(import.meta.dirname, "..");
const pages = docPages();
const textOf = (page: string) => readFileSync(join(root, page), "utf8");

/** As GitHub makes a heading's anchor. */
function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, "")
      .replace(/\s/g, "-"),
  );
}

describe.each(pages)("%s", (page) => {
  const text = textOf(page);

  test("its links lead to files and headings", () => {
    const lost = [...text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)].filter(([, link = ""]) => {
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? page : join(dirname(page), path);
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && !anchorsOf(textOf(target)).includes(anchor);
    });
    expect(lost.map(([link]) => link)).toEqual([]);
  });

  test("its commands and their options exist", async () => {
    // What documentation/commands.test.ts runs is checked by that; here also what a sentence names.
    const named = [...text.matchAll(/`((?:npx kto-webgpu|kto) [a-z]+ [^`]*)`/g)].map(([, line = ""]) =>
      line.replace(/^kto /, "npx kto-webgpu "),
    );
    const lines = [...commandsOf(page).map(({ line }) => line), ...named];
    for (const line of lines) {
      // Never "npx kto": without an install it would fetch another's package.
      expect(line).not.toMatch(/\bnpx kto\b(?!-)/);
      const [, command, rest = ""] = /^npx kto-webgpu (\S+)(.*)$/.exec(line) ?? [];
      if (command === undefined) continue;
      const { code, stdout } = await kto(command, "--help");
      expect({ line, code }).toEqual({ line, code: 0 });
      const unknown = [...rest.matchAll(/--([a-z][a-z0-9_]*)/g)].filter(
        ([, name]) => !new RegExp(`--${name}\\b`).test(stdout),
      );
      expect({ line, unknown: unknown.map(([name]) => name) }).toEqual({ line, unknown: [] });
    }
  });
});

test("code that is shown as a file's stands in that file", () => {
  const shown = pages.flatMap((page) =>
    [...textOf(page).matchAll(/<!-- from: (\S+) -->\n```\w+\n([\s\S]*?)^```/gm)].map(([, file = "", code = ""]) => ({
      ...{ page, file, code },
    })),
  );
  expect(shown.length).toBeGreaterThan(5);
  for (const { page, file, code } of shown) {
    expect({ page, file, isThere: textOf(file).includes(code) }).toEqual({ page, file, isThere: true });
  }
});

test("JSON that is shown is JSON, a line each or as a whole", () => {
  for (const page of pages) {
    for (const block of blocksOf(page, "json")) {
      const isJson = (text: string) => {
        try {
          return JSON.parse(text) !== undefined;
        } catch {
          return false;
        }
      };
      const valid = isJson(block) || block.trim().split("\n").every(isJson);
      expect({ page, block, valid }).toEqual({ page, block, valid: true });
    }
  }
});

test("the README has at most 900 words", () => {
  expect(textOf("README.md").split(/\s+/).length).toBeLessThanOrEqual(900);
});

test("a paragraph has at most 120 words", () => {
  // Lists of names that are made of the code are no text to read.
  const long = pages
    .filter((page) => !page.startsWith("docs/reference/"))
    .flatMap((page) => textOf(page).split(/\n\n|\n(?=- |\d+\. )/))
    .filter((paragraph) => !/^(?: {4}|\||```)/.test(paragraph) && paragraph.split(/\s+/).length > 120);
  expect(long).toEqual([]);
});

test("the messages that troubleshooting quotes, and the variables that it names, occur in the sources", () => {
  const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => textOf(join("src", name)))
    .join("\n");
  const page = textOf("docs/troubleshooting.md");
  // In the sources a value that varies, "…" here, is written as ${...}, and may have quotes around it.
  const quoted = [...page.matchAll(/^\| ([^|]*) \|/gm)].flatMap(
    ([, cell = ""]) => cell.match(/(?<=")[^"]+(?=")/g) ?? [],
  );
  const escaped = (text: string) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  const pattern = (quote: string) => new RegExp(quote.split("…").map(escaped).join('"?\\$\\{[^}\\n]*\\}"?'));
  expect(quoted.length).toBeGreaterThan(3);
  expect(quoted.filter((quote) => !pattern(quote).test(sources))).toEqual([]);
  const variables = page.match(/\bKTO_[A-Z_]+/g) ?? [];
  expect(variables.filter((name) => !sources.includes(name))).toEqual([]);
});

test("the places of finding your way exist, and each name in parentheses occurs in its file", () => {
  const places = textOf("docs/finding-your-way.md").matchAll(/`([\w./-]+\/[\w.-]+)`(?: \(((?:`[^`]+`(?:, )?)+)\))?/g);
  const found = [...places].map(([, path = "", names = ""]) => ({
    path,
    names: names.match(/(?<=`)[^`,]+(?=`)/g) ?? [],
  }));
  expect(found.filter(({ names }) => names.length > 0).length).toBeGreaterThan(10);
  expect(found.filter(({ path }) => !existsSync(join(root, path)))).toEqual([]);
  const lost = found.flatMap(({ path, names }) => {
    if (names.length === 0) return [];
    const text = textOf(path);
    return names.filter((name) => !text.includes(name)).map((name) => `${name} in ${path}`);
  });
  expect(lost).toEqual([]);
});

test("the places that the table of cases names exist, and each name in parentheses occurs in its file", () => {
  const rows = [...textOf("test/fixtures/cases/README.md").matchAll(/^\| .* \| (.*) \| .* \|$/gm)].slice(1);
  const files = ["src", "bin", "test"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((name) => `${folder}/${name}`),
  );
  const lost = rows.flatMap(([, cell = ""]) =>
    [...cell.matchAll(/`([\w./-]+\.[jt]s)`(?: \(`([^`]+)`\))?/g)].flatMap(([, path = "", name = ""]) => {
      const found = existsSync(join(root, path)) ? [path] : files.filter((one) => one.endsWith(`/${path}`));
      return found.some((one) => textOf(one).includes(name)) ? [] : [`${path} ${name}`.trimEnd()];
    }),
  );
  expect(rows.length).toBeGreaterThan(30);
  expect(lost).toEqual([]);
});

test("the tests that the table of cases names occur in their files", () => {
  const rows = [...textOf("test/fixtures/cases/README.md").matchAll(/^\| .* \| .* \| (.*) \|$/gm)].slice(1);
  const files = readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" });
  const lost = rows.flatMap(([, cell = ""]) => {
    let text = "";
    return [...cell.matchAll(/`([\w./-]+\.test\.ts)`|"((?:[^"]|"undefined")+)"/g)].flatMap(([, file, name = ""]) => {
      if (file !== undefined) {
        const path = files.find((one) => one === file) ?? files.find((one) => one.endsWith(`/${file}`));
        if (path === undefined) return [file];
        text = textOf(join("test", path));
        return [];
      }
      // "…" stands for what is left out. A name is a title, or the title of a group and the one of a test in it.
      const parts = name.split("…").map((part) => part.trim());
      const isHere = parts.every((part) => {
        const spaces = [...part.matchAll(/:? /g)];
        return (
          text.includes(part) ||
          spaces.some(
            ([space], i) =>
              text.includes(`("${part.slice(0, spaces[i]?.index)}"`) &&
              text.includes(`("${part.slice((spaces[i]?.index ?? 0) + space.length)}`),
          )
        );
      });
      return isHere ? [] : [name];
    });
  });
  expect(rows.length).toBeGreaterThan(30);
  expect(lost).toEqual([]);
});
