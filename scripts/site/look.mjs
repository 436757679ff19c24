/**
 * Looks at the built site in headless Chromium: `node scripts/site/look.mjs [PAGE...]` serves out/site on this machine,
 * visits every page in the light theme and some in both (or those named in both), and prints, as it goes, what axe-core
 * finds, what does not load, what asks for another server, and what is wider than the screen. Pictures of some pages at
 * 1,280 and 390 pixels are left in .cache/screens/site. Exit code 1 for anything serious. Takes three minutes on two
 * cores; "--from PAGE" goes on where it was ended. Linux on x64 only.
 */
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { unpackChromium } from "../chromium.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const site = join(root, "out", "site");
const screens = join(root, ".cache", "screens", "site");
/** Those of which pictures are kept. */
const pictured = [
  "index.html",
  "first-run.html",
  "choosing.html",
  "curves.html",
  "reference/options.html",
  "design/index.html",
];
const sizes = [
  { name: "wide", width: 1280, height: 900 },
  { name: "phone", width: 390, height: 844 },
];
const types = {
  ...{ ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json" },
  ...{ ".svg": "image/svg+xml", ".woff2": "font/woff2" },
};

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname));
  const file = join(site, path.endsWith("/") ? `${path}index.html` : path);
  if (!file.startsWith(site) || !existsSync(file) || !statSync(file).isFile()) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" });
  createReadStream(file).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const address = `http://127.0.0.1:${server.address().port}`;

const isGoingOn = process.argv[2] === "--from";
const asked = isGoingOn ? [] : process.argv.slice(2);
const all = readdirSync(site, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".html"));
// Of the API's pages, which are all made alike, some.
const pages =
  asked.length > 0
    ? asked
    : all.filter((name) => !name.startsWith("api/") || /KtoTrainer\.|Device\.|api\/index/.test(name));
const isAsked = asked.length > 0;
const hasPicture = (page) => isAsked || pictured.includes(page);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(screens, { recursive: true });

const executablePath = await unpackChromium();
// Under LANG=C this Chromium calls its language en-US@posix, which no Intl takes.
const env = { ...process.env, LANG: "en_US.UTF-8", LANGUAGE: "en_US" };
if (existsSync("/etc/fonts/fonts.conf")) env.FONTCONFIG_PATH = "/etc/fonts";
const args = ["--no-sandbox", "--disable-gpu", "--no-zygote", "--lang=en-US"];
const browser = await chromium.launch({ executablePath, args, env });
let faults = 0;
let isPast = !isGoingOn;
for (const theme of ["light", "dark"]) {
  for (const { name, width, height } of sizes) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme });
    const page = await context.newPage();
    let at = "";
    const tell = (what) => {
      faults++;
      console.log(`${at} (${theme}, ${width} px): ${what}`);
    };
    page.on("pageerror", (error) => tell(error.message));
    page.on("request", (request) => {
      if (!request.url().startsWith(address) && !request.url().startsWith("data:")) tell(`asks for ${request.url()}`);
    });
    page.on("response", (response) => {
      if (response.status() >= 400) tell(`${response.status()} ${response.url()}`);
    });
    for (at of isAsked || (name === "wide" && theme === "light") ? pages : pages.filter(hasPicture)) {
      isPast ||= at === process.argv[3];
      if (!isPast) continue;
      await page.goto(`${address}/${at}`, { waitUntil: "load" });
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      for (const { id, impact, nodes } of violations) {
        if (impact !== "serious" && impact !== "critical") continue;
        tell(`${impact}: ${id}, ${nodes.length} times, such as ${nodes[0]?.html.slice(0, 120)}`);
      }
      const excess = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (excess > 0) tell(`is ${excess} px wider than the screen`);
      if (hasPicture(at)) {
        await page.screenshot({ path: join(screens, `${at.replace(/\.html$|\//g, "-")}${name}-${theme}.png`) });
      }
    }
    await context.close();
  }
}
await browser.close();
server.close();
console.log(`${pages.length} pages, ${faults} faults; pictures in ${screens}`);
process.exitCode = faults > 0 ? 1 : 0;
