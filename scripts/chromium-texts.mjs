/**
 * Compiles every text that src/kernels can generate in headless Chromium on SwiftShader: `node scripts/chromium-texts.mjs`;
 * with a folder behind it, the texts that lie there. SwiftShader has neither f16 nor cooperative matrices, so that no
 * flag gives Chromium's device `chromium-experimental-subgroup-matrix` here: the texts that need them are left out and
 * counted; Node's WebGPU compiles these on an adapter that has them (`scripts/kernel-texts.ts --compile`).
 * The last line is "N of N texts compile"; the exit code is 1 where one does not, or where Chromium has no adapter. The
 * browser is the dev dependency's, unpacked with the libraries that it needs into .cache. Linux on x64 only.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromiumFolder, unpackChromium } from "./chromium.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const [given] = process.argv.slice(2);
const textFolder = given ?? join(root, ".cache", "kernel-texts");
/** Texts that the page takes at once. */
const BATCH = 200;
/** For hangs alone, between two messages of the page. */
const PATIENCE_MS = 5 * 60_000;

const began = performance.now();
if (given === undefined) {
  const generate = ["--import", "tsx", "scripts/kernel-texts.ts", textFolder];
  if (spawnSync("node", generate, { cwd: root, stdio: "inherit" }).status !== 0) process.exit(1);
}
const files = readdirSync(textFolder)
  .filter((name) => name.endsWith(".wgsl"))
  .sort();
const executable = await unpackChromium();
const report = await compileIn(executable);

console.log(`${report.adapter}, ${Math.round((performance.now() - began) / 1000)} s`);
for (const [name, message] of report.errors.slice(0, 10)) console.error(`${name}: ${message}`);
for (const [feature, count] of Object.entries(report.leftOut)) {
  console.log(`${count} texts left out: this browser has no ${feature} here`);
}
const tried = report.compiled + report.errors.length;
console.log(`${report.compiled} of ${tried} texts compile`);
const seen = tried + Object.values(report.leftOut).reduce((sum, count) => sum + count, 0);
process.exit(report.errors.length === 0 && tried > 0 && seen === files.length ? 0 : 1);

/** Serves the page and the texts to Chromium until the page says that it is done. */
function compileIn(program) {
  const profile = mkdtempSync(join(chromiumFolder, "profile-"));
  return new Promise((resolve, reject) => {
    let browser;
    let patience;
    // All of the browser's processes, which write to the profile until they end: then nothing holds their stderr.
    const end = (settle) => {
      clearTimeout(patience);
      server.close();
      if (browser?.pid === undefined || browser.stderr.closed) return settle();
      browser.removeAllListeners("exit").once("close", settle);
      process.kill(-browser.pid, "SIGKILL");
    };
    const fail = (message) => end(() => reject(new Error(message)));
    const wait = () => {
      clearTimeout(patience);
      patience = setTimeout(() => fail("Chromium says nothing; it may hang."), PATIENCE_MS);
    };
    const server = createServer(async (request, response) => {
      wait();
      const url = new URL(request.url ?? "/", "http://localhost");
      if (url.pathname === "/texts") {
        const first = Number(url.searchParams.get("from"));
        const batch = files.slice(first, first + BATCH);
        response.end(JSON.stringify(batch.map((name) => [name, readFileSync(join(textFolder, name), "utf8")])));
      } else if (url.pathname === "/done") {
        let body = "";
        for await (const chunk of request) body += chunk;
        response.end();
        const answer = JSON.parse(body);
        if (answer.failure === undefined) end(() => resolve(answer));
        else fail(`Chromium compiles nothing: ${answer.failure}`);
      } else {
        response.setHeader("content-type", "text/html");
        response.end(`<!doctype html><script type="module">(${inPage})()</script>`);
      }
    });
    server.listen(0, "127.0.0.1", () => {
      wait();
      const flags = [
        "--headless",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--no-first-run",
        `--user-data-dir=${profile}`,
        "--enable-unsafe-webgpu",
        "--use-webgpu-adapter=swiftshader",
        "--enable-features=Vulkan",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
      ];
      browser = spawn(program, [...flags, `http://127.0.0.1:${server.address().port}/`], {
        stdio: ["ignore", "ignore", "pipe"],
        detached: true,
      });
      let said = "";
      browser.stderr.on("data", (text) => {
        said = `${said}${text}`.slice(-2000);
      });
      browser.on("error", (error) => fail(`Chromium cannot be started: ${error.message}`));
      browser.on("exit", (code) => fail(`Chromium ended with ${code}: ${said}`));
      process.once("exit", () => {
        if (browser.exitCode === null && browser.signalCode === null) process.kill(-browser.pid, "SIGKILL");
      });
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));
    });
  }).finally(() => rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }));
}

/** Runs in the browser: it is sent as text and knows nothing of this file. */
async function inPage() {
  const say = (answer) => fetch("/done", { method: "POST", body: JSON.stringify(answer) });
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) return await say({ failure: "it has no WebGPU adapter" });
    const matrices = "chromium-experimental-subgroup-matrix";
    const features = ["subgroups", "shader-f16", matrices].filter((feature) => adapter.features.has(feature));
    const device = await adapter.requestDevice({ requiredFeatures: features });
    const needs = {
      "enable chromium_experimental_subgroup_matrix;": matrices,
      "enable subgroups;": "subgroups",
      "enable f16;": "shader-f16",
    };
    const answer = { compiled: 0, errors: [], leftOut: {} };
    for (let from = 0; ; ) {
      const texts = await (await fetch(`/texts?from=${from}`)).json();
      if (texts.length === 0) break;
      from += texts.length;
      for (const [name, code] of texts) {
        const [, lacking] =
          Object.entries(needs).find(([line, feature]) => code.includes(line) && !features.includes(feature)) ?? [];
        if (lacking) {
          answer.leftOut[lacking] = (answer.leftOut[lacking] ?? 0) + 1;
          continue;
        }
        const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
        const error = messages.find(({ type }) => type === "error");
        if (error) answer.errors.push([name, error.message]);
        else answer.compiled++;
      }
    }
    const version = /Chrom\w*\/[\d.]+/.exec(navigator.userAgent)?.[0];
    await say({ ...answer, adapter: `${version}, ${adapter.info.vendor} ${adapter.info.architecture}` });
  } catch (error) {
    await say({ failure: String(error?.stack ?? error) });
  }
}
