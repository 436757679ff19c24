/**
 * A page of docs/ as the site has it: links to pages stay links, those to other files of the repository lead to GitHub,
 * or become plain words where the repository is not known. No build, and nothing is read or written here.
 */
import { posix } from "node:path";

/** Where README.md and CHANGELOG.md of the project stand on the site. */
const moved = new Map([
  ["README.md", "index.md"],
  ["CHANGELOG.md", "changelog.md"],
]);

/**
 * @param {string} text
 * @param {string} path of the page in the repository
 * @param {string | undefined} repository "owner/name" on GitHub
 * @returns {string}
 */
export function staged(text, path, repository) {
  // Code keeps what looks like a link in it, and may itself be the words of a link.
  const code = [];
  const masked = text.replace(/^```[\s\S]*?^```|`[^`\n]*`/gm, (found) => `\0${code.push(found) - 1}\0`);
  return withLinks(masked, path, repository).replace(/\0(\d+)\0/g, (_, at) => code[Number(at)]);
}

function withLinks(text, path, repository) {
  return text.replace(/(!?)\[((?:[^[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)\s]+)\)/g, (_, image, words, link) => {
    const [file = "", anchor] = link.split("#");
    const target = posix.normalize(posix.join(posix.dirname(path), file));
    const end = anchor === undefined ? "" : `#${anchor}`;
    if (moved.has(target)) return `${image}[${words}](/${moved.get(target)}${end})`;
    if (target.startsWith("docs/")) {
      const page = target.slice("docs/".length).replace(/(^|\/)README\.md$/, "$1index.md");
      return `${image}[${words}](/${page}${end})`;
    }
    if (repository === undefined) return image === "" ? words : "";
    return `${image}[${words}](https://github.com/${repository}/blob/main/${target}${end})`;
  });
}
