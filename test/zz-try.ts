import { buildBrowserPage, serveFolder } from "../scripts/browser-page.mjs";
import { openChromium } from "./helpers/browser.ts";
await buildBrowserPage("/work/wt/browser", "/tmp/br/page");
const { address, close } = await serveFolder("/tmp/br/page", 0);
const browser = await openChromium({ webgpu: true });
const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: "en-US" });
page.on("pageerror", (e) => console.log("PAGEERROR", e.message));
page.on("console", (m) => console.log("CONSOLE", m.type(), m.text()));
const t0 = Date.now();
const say = (x: string) => console.log(((Date.now() - t0) / 1000).toFixed(1), x);
await page.goto(`${address}?tuning=off${process.argv[2] ?? ""}`);
const status = () => page.getByRole("status").innerText();
async function until(re: RegExp, s = 200) {
  const end = Date.now() + s * 1000; let last = "";
  for (;;) { const now = await page.locator(".state").innerText(); if (now !== last) say(now); last = now; if (re.test(now)) return; if (Date.now() > end) throw new Error("late"); await new Promise(r => setTimeout(r, 300)); }
}
try {
  await until(/Ready\./);
  await page.screenshot({ path: "/tmp/br/1.png", fullPage: true });
  const cards = page.locator(".story");
  say(String(await cards.count()));
  for (let i = 0; i < 4; i++) await page.getByRole("button", { name: `Thumb ${i % 2 ? "up" : "down"} for story ${i + 1}` }).click();
  await page.getByLabel("Updates").first().fill("3");
  await page.getByLabel("Rows of an update").fill("4");
  await page.getByRole("button", { name: "Train" }).click();
  await until(/Ready\./);
  await page.screenshot({ path: "/tmp/br/2.png", fullPage: true });
} catch (e) { console.log(e); await page.screenshot({ path: "/tmp/br/x.png", fullPage: true }); }
await browser.close(); await close();
