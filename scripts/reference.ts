/** `npm run docs:reference` writes again the tables of the documentation that are made from the code (reference/tables.ts). */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { withTables } from "./reference/tables.ts";

const docs = join(import.meta.dirname, "..", "docs");

for (const name of readdirSync(docs, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".md"))) {
  const before = readFileSync(join(docs, name), "utf8");
  const after = withTables(before);
  if (after === before) continue;
  writeFileSync(join(docs, name), after);
  console.log(`docs/${name}`);
}
