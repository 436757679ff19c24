/**
 * Renders the templates of a file that scripts/make-template-goldens.py --random wrote, and shows where our rendering
 * is not Python's: npx tsx scripts/compare-templates.ts random.jsonl [most differences to show]
 */
import { readFileSync } from "node:fs";
import { parseExactJson } from "../src/engine/files/exact-json.ts";
import { TemplateError } from "../src/engine/text/jinja/errors.ts";
import { TemplateLimitError } from "../src/engine/text/jinja/limits.ts";
import { compileTemplate } from "../src/engine/text/jinja/template.ts";

const [file = "", most = "20"] = process.argv.slice(2);

interface Case {
  readonly inline: string;
  readonly text?: string;
  readonly error?: string;
  readonly message?: string;
}

const scenariosUrl = new URL("../test/fixtures/templates/scenarios.json", import.meta.url);
const scenarios = parseExactJson(readFileSync(scenariosUrl, "utf8")) as {
  name: string;
  variables: Record<string, unknown>;
}[];
const variables = scenarios.find(({ name }) => name === "values")?.variables ?? {};

function rendered(template: string): { text?: string; error?: string } {
  try {
    return { text: compileTemplate(template, "t.jinja").render(variables) };
  } catch (error) {
    if (error instanceof TemplateError) return { error: `${error.kind}: ${error.message}` };
    if (error instanceof TemplateLimitError) return { error: `limit: ${error.message}` };
    return { error: `BUG ${error instanceof Error ? error.stack : String(error)}` };
  }
}

const lines = readFileSync(file, "utf8").trim().split("\n");
let different = 0;
for (const line of lines) {
  const expected = JSON.parse(line) as Case;
  const found = rendered(expected.inline);
  const bug = found.error?.startsWith("BUG") === true;
  if (!bug && (expected.text === undefined ? found.text === undefined : found.text === expected.text)) continue;
  if (++different > Number(most)) continue;
  console.log(JSON.stringify(expected.inline));
  console.log("  python:", JSON.stringify(expected.text ?? expected.error));
  console.log("  ours:  ", found.text === undefined ? found.error : JSON.stringify(found.text));
}
console.log(`${lines.length} renderings, ${different} different`);
