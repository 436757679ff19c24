/**
 * A walk through the dashboard and the browser example by keyboard alone, and what a screen reader finds there: Tab from
 * the top of the page to its end, in Chromium; for each stop its role, name and whether one sees that it has the focus;
 * controls, pictures and tables without a name; and live regions. What it lists as faults is to be mended.
 *
 *     npx tsx scripts/page-walk.ts [dashboard|browser]
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CDPSession, Page } from "playwright-core";
import { openChromium } from "../test/helpers/browser.ts";
import { writeToldRun } from "../test/helpers/dashboard-run.ts";
import { buildBrowserPage, serveFolder } from "./browser-page.mjs";

const [which] = process.argv.slice(2);
const root = mkdtempSync(join(tmpdir(), "kto-walk-"));
let faults = 0;
const fault = (text: string) => {
  faults++;
  console.log(`  FAULT ${text}`);
};

/** A node of the accessibility tree, as far as is read here. */
interface Node {
  readonly nodeId: string;
  readonly ignored: boolean;
  readonly role?: { readonly value: string };
  readonly name?: { readonly value: string };
  readonly properties?: readonly { readonly name: string; readonly value: { readonly value?: unknown } }[];
  readonly childIds?: readonly string[];
}

const CONTROLS = [
  ...["button", "link", "textbox", "searchbox", "checkbox", "radio", "slider", "spinbutton", "combobox", "tab"],
  ...["switch", "option", "img", "image", "figure", "table", "region", "DisclosureTriangle", "menuitem"],
];

async function tree(session: CDPSession): Promise<readonly Node[]> {
  const { nodes } = (await session.send("Accessibility.getFullAXTree")) as unknown as { nodes: Node[] };
  return nodes.filter(({ ignored }) => !ignored);
}

const roleOf = (node: Node) => node.role?.value ?? "";
const nameOf = (node: Node) => node.name?.value.trim() ?? "";

/** What a screen reader has of a page: how many of each role, those without a name, headings in order, live regions. */
async function read(session: CDPSession): Promise<void> {
  const nodes = await tree(session);
  const counts = new Map<string, number>();
  for (const node of nodes) {
    const role = roleOf(node);
    if (!CONTROLS.includes(role)) continue;
    counts.set(role, (counts.get(role) ?? 0) + 1);
    if (nameOf(node) === "") fault(`a ${role} has no name (node ${node.nodeId})`);
  }
  console.log(`  has ${[...counts].map(([role, count]) => `${count} ${role}`).join(", ")}`);
  const headings = nodes.filter((node) => roleOf(node) === "heading");
  const levels = headings.map(({ properties }) =>
    Number(properties?.find(({ name }) => name === "level")?.value.value),
  );
  for (const [i, level] of levels.entries()) {
    const before = levels[i - 1] ?? 0;
    if (level > before + 1)
      fault(`heading "${nameOf(headings[i] as Node)}" of level ${level} stands behind level ${before}`);
  }
  console.log(
    `  headings: ${headings
      .map((node, i) => `${levels[i]} ${nameOf(node)}`)
      .join("; ")
      .slice(0, 400)}`,
  );
  const live = nodes.flatMap((node) => {
    const value = node.properties?.find(({ name }) => name === "live")?.value.value;
    return value === "polite" || value === "assertive" ? [`${roleOf(node)} (${String(value)})`] : [];
  });
  console.log(`  live: ${live.length === 0 ? "none" : [...new Set(live)].join(", ")}`);
  const tables = nodes.filter((node) => roleOf(node) === "table");
  const headers = nodes.filter((node) => ["columnheader", "rowheader"].includes(roleOf(node)));
  if (tables.length > 0 && headers.length === 0) fault(`${tables.length} tables have no header cells`);
}

/** Where the focus is. */
async function focused(page: Page) {
  return await page.evaluate(() => {
    const element = document.activeElement;
    if (element === null || element === document.body) return undefined;
    const style = getComputedStyle(element);
    const { width, height } = element.getBoundingClientRect();
    const around = element.closest("label, .tab, summary");
    const outlined = [element, ...(around ? [around] : [])].some((one) => {
      const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(one);
      return (outlineStyle !== "none" && outlineWidth !== "0px") || boxShadow !== "none";
    });
    const labels = (element as HTMLInputElement).labels;
    const name =
      element.getAttribute("aria-label") ??
      (labels?.[0]?.textContent || element.textContent || element.getAttribute("title") || "");
    return {
      key: `${element.tagName} ${element.id} ${element.className} ${name}`,
      what: `${element.getAttribute("role") ?? element.tagName.toLowerCase()} "${name.trim().replace(/\s+/g, " ").slice(0, 60)}"`,
      seen: width * height > 0 && style.visibility !== "hidden",
      outlined,
      named: name.trim() !== "" || element.getAttribute("aria-labelledby") !== null,
    };
  });
}

/** Tab to the end of the page. */
async function walk(page: Page): Promise<void> {
  await page.evaluate(() => {
    // From the top, wherever was clicked.
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute("tabindex");
  });
  const stops: string[] = [];
  const seen = new Map<string, number>();
  for (let i = 0; i < 400; i++) {
    await page.keyboard.press("Tab");
    const at = await focused(page);
    if (at === undefined) break;
    const times = (seen.get(at.key) ?? 0) + 1;
    seen.set(at.key, times);
    if (i === 399 || times > 60) {
      fault(`the focus does not come to the end of the page: ${at.what}`);
      break;
    }
    stops.push(at.what);
    if (!at.named) fault(`the focus is on ${at.what}, which has no name`);
    if (!at.seen) fault(`the focus is on ${at.what}, which cannot be seen`);
    if (!at.outlined) fault(`nobody sees that ${at.what} has the focus`);
  }
  console.log(`  ${stops.length} stops: ${stops.join(", ").slice(0, 900)}`);
}

async function dashboard(): Promise<void> {
  const runs = join(root, "runs");
  writeToldRun(join(runs, "first"), { beta: 0.1 });
  writeToldRun(join(runs, "second"), { beta: 0.5 });
  const child = spawn(process.execPath, ["bin/kto.js", "dashboard", runs, "--port", "0", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [told] = (await once(child.stdout, "data")) as [Buffer];
  const { address } = JSON.parse(told.toString()) as { address: string };
  const browser = await openChromium();
  try {
    const page = await browser.newPage();
    const session = await page.context().newCDPSession(page);
    await page.goto(address);
    await page.getByRole("tab").first().waitFor();
    const tabs = await page.getByRole("tab").allTextContents();
    for (const [i, name] of tabs.entries()) {
      await page.getByRole("tab").nth(i).click();
      await page.waitForTimeout(1000);
      console.log(`dashboard, tab ${name}`);
      await read(session);
      await walk(page);
    }
  } finally {
    await browser.close();
    child.kill("SIGINT");
  }
}

async function browserExample(): Promise<void> {
  const folder = join(root, "page");
  await buildBrowserPage(join(import.meta.dirname, ".."), folder);
  const served = await serveFolder(folder, 0);
  const browser = await openChromium({ webgpu: true });
  try {
    const page = await browser.newPage();
    const session = await page.context().newCDPSession(page);
    await page.goto(served.address);
    await page.getByRole("button", { name: "Thumb up for story 1", exact: true }).waitFor({ timeout: 120_000 });
    await page
      .getByRole("status")
      .filter({ hasText: /Ready\./ })
      .first()
      .waitFor({ timeout: 120_000 });
    console.log("browser example, stories told");
    await read(session);
    await walk(page);
  } finally {
    await browser.close();
    await served.close();
  }
}

try {
  if (which !== "browser") await dashboard();
  if (which !== "dashboard") await browserExample();
  console.log(`${faults} faults`);
  process.exitCode = faults === 0 ? 0 : 1;
} finally {
  rmSync(root, { recursive: true, force: true });
}
