/**
 * Asks for every address outside the repository that README.md, CHANGELOG.md and docs/ link to, and prints those that do
 * not answer: `node scripts/site/external-links.mjs`. Exit code 1 where one is gone. Needs the network, so no test runs
 * it.
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

let gone = 0;
for (const [address, from] of places) {
  const status = await statusOf(address);
  const isGood = typeof status === "number" && status < 400;
  if (!isGood) gone++;
  console.log(`${isGood ? "ok  " : "GONE"} ${status} ${address}${isGood ? "" : ` (${[...new Set(from)].join(", ")})`}`);
}
console.log(`${places.size} addresses, ${gone} gone`);
process.exitCode = gone > 0 ? 1 : 0;
