/**
 * `npm run browser [-- --port 8000] [-- --build]`: builds the page of examples/browser into out/browser, a folder for any
 * static host, and serves it on this machine until Ctrl-C; with --build it is only built.
 */
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildBrowserPage, serveFolder } from "./browser-page.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const folder = join(root, "out", "browser");
const { values } = parseArgs({ options: { port: { type: "string", default: "8000" }, build: { type: "boolean" } } });

const { outputs } = await buildBrowserPage(root, folder);
for (const [path, { bytes }] of Object.entries(outputs)) console.log(`${path}  ${Math.round(bytes / 1000)} kB`);
console.log(`The page lies in ${relative(process.cwd(), folder)}; any static host serves it, over https.`);
if (!values.build) {
  try {
    const { address } = await serveFolder(folder, Number(values.port));
    console.log(`Open ${address} in a browser with WebGPU. Ctrl-C ends it.`);
  } catch (error) {
    console.error(
      `Port ${values.port} is not free (${error.code ?? error.message}); choose another one with -- --port.`,
    );
    process.exitCode = 1;
  }
}
