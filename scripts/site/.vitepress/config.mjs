/** The site as VitePress builds it: its pages in their order, search without a server, nothing loaded from elsewhere. */
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { addressOf, groups } from "../pages.mjs";

const site = join(dirname(fileURLToPath(import.meta.url)), "..");
const pages = join(site, ".cache", "pages");
const isThere = (file) => existsSync(join(pages, file.replace(/README\.md$/, "index.md")));

const sidebar = groups.map(({ text, items }) => ({
  text,
  items: items.filter(([, file]) => isThere(file)).map(([title, file]) => ({ text: title, link: addressOf(file) })),
}));

/** TypeDoc's folders, one for each kind of name. */
function api() {
  const folder = join(pages, "api");
  if (!existsSync(folder)) return [];
  const kinds = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return kinds.map(({ name: kind }) => ({
    // Not to be folded: VitePress's folding heads are buttons in buttons, which screen readers cannot tell apart.
    text: `${kind.charAt(0).toUpperCase()}${kind.slice(1).replaceAll("-", " ")}`,
    items: readdirSync(join(folder, kind))
      .map((file) => file.replace(/\.md$/, ""))
      .map((name) => ({ text: name, link: `/api/${kind}/${name}` })),
  }));
}

export default {
  title: "kto-webgpu",
  description: "Align a language model with thumbs-up/thumbs-down feedback, on any GPU, with Node alone.",
  lang: "en",
  base: process.env.SITE_BASE || "/",
  srcDir: join(".cache", "pages"),
  outDir: join(site, "..", "..", "out", "site"),
  cleanUrls: false,
  lastUpdated: false,
  markdown: { theme: { light: "github-light-high-contrast", dark: "github-dark-high-contrast" } },
  vite: { build: { chunkSizeWarningLimit: 2000 } },
  themeConfig: {
    nav: [
      { text: "First run", link: "/first-run" },
      { text: "Options", link: "/reference/options" },
      { text: "API", link: "/api/" },
      { text: "Design", link: "/design/" },
      { text: "Changes", link: "/changelog" },
    ],
    sidebar: { "/api/": [{ text: "API", link: "/api/", items: api() }], "/": sidebar },
    outline: [2, 3],
    search: { provider: "local" },
    notFound: { linkText: "Take me home", linkLabel: "Take me home" },
    ...(process.env.GITHUB_REPOSITORY && {
      socialLinks: [{ icon: "github", link: `https://github.com/${process.env.GITHUB_REPOSITORY}` }],
    }),
    footer: { message: "Apache-2.0" },
  },
};
