/**
 * Asks for every address outside the repository that README.md, CHANGELOG.md and docs/ link to, and prints those that do
 * not answer: `node scripts/site/external-links.mjs`. Exit code 1 where one is gone, 2 where no host is found, which is
 * no network and says nothing of the links. No test runs it.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const pages = [
  "README.md",
  "CHANGELOG.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
];
/** Addresses by the pages that link to them. */
const places = new Map();
for (const page of pages) {
  const text = readFileSync(join(root, page), "utf8");
  for (const [, address] of text.matchAll(/\]\((https?:\/\/[^)\s]+)\)/g)) {
    places.set(address, [...(places.get(address) ?? []), page]);
  }
}

async function statusOf(address) {
  const ask = (method) => fetch(address, { method, signal: AbortSignal.timeout(20_000) });
  try {
    const { status } = await ask("HEAD");
    // Some servers answer GET alone.
    return status < 400 ? status : (await ask("GET")).status;
  } catch (error) {
    return error.cause?.code ?? error.name;
  }
}

let [gone, unfound] = [0, 0];
for (const [address, from] of places) {
  const status = await statusOf(address);
  const isGood = typeof status === "number" && status < 400;
  if (!isGood) gone++;
  if (status === "ENOTFOUND" || status === "EAI_AGAIN") unfound++;
  console.log(`${isGood ? "ok  " : "GONE"} ${status} ${address}${isGood ? "" : ` (${[...new Set(from)].join(", ")})`}`);
}
console.log(`${places.size} addresses, ${gone} gone`);
const hasNetwork = unfound < places.size;
if (!hasNetwork) console.log("No host is found: there is no network here, so nothing is known of the links.");
process.exitCode = !hasNetwork ? 2 : gone > 0 ? 1 : 0;
