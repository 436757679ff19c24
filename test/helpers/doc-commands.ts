/** The command lines that README.md and the pages of docs/ show, in the order in which the site shows its pages. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { groups } from "../../scripts/site/pages.mjs";

const root = join(import.meta.dirname, "..", "..");

export interface DocCommand {
  readonly page: string;
  /** As it stands there, its lines joined and without comments. */
  readonly line: string;
  /** Its words as a shell reads them, without a redirection. */
  readonly words: readonly string[];
  /** The file into which its output is redirected. */
  readonly into: string | undefined;
}

/** README.md, the pages in the site's order, then those that it does not list. */
export function docPages(): string[] {
  const docs = readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => name.replaceAll("\\", "/"));
  const listed = groups.flatMap(({ items }) => items.map(([, file]) => file)).filter((file) => docs.includes(file));
  return ["README.md", ...new Set([...listed, ...docs])].map((name) =>
    existsSync(join(root, "docs", name)) ? `docs/${name}` : name,
  );
}

/** The blocks of code of these languages on a page. */
export function blocksOf(page: string, language = "sh"): string[] {
  const text = readFileSync(join(root, page), "utf8");
  return [...text.matchAll(new RegExp(`^\`\`\`(?:${language})\\n([\\s\\S]*?)^\`\`\``, "gm"))].map(
    ([, block = ""]) => block,
  );
}

export function commandsOf(page: string): DocCommand[] {
  const lines = blocksOf(page, "sh|bash|shell|console")
    .join("\n")
    .replaceAll(/ *\\\n */g, " ")
    .split("\n");
  return lines.flatMap((raw) => {
    const line = raw.replace(/(^|\s)#.*$/, "").trim();
    if (line === "") return [];
    const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c ?? "");
    const sign = words.indexOf(">");
    return [
      {
        ...{ page, line, into: sign < 0 ? undefined : words[sign + 1] },
        words: sign < 0 ? words : words.slice(0, sign),
      },
    ];
  });
}
