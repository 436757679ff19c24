/**
 * The headless Chromium that is a dev dependency, unpacked with the libraries that it needs into .cache. Linux on x64
 * only.
 */
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { version } = JSON.parse(readFileSync(join(root, "node_modules/@sparticuz/chromium/package.json"), "utf8"));

/** Where it lies; a place for profiles too. */
export const chromiumFolder = join(root, ".cache", `chromium-${version}`);

/**
 * The package unpacks into TMPDIR, and the system libraries only where it takes the machine for AWS Lambda.
 *
 * @returns {Promise<string>} the executable; the environment that it needs is set in this process
 */
export async function unpackChromium() {
  mkdirSync(chromiumFolder, { recursive: true });
  process.env.TMPDIR = chromiumFolder;
  process.env.AWS_LAMBDA_JS_RUNTIME = "nodejs20.x";
  const { default: chromium } = await import("@sparticuz/chromium");
  return await chromium.executablePath();
}
