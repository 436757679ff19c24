/**
 * Renders the templates of a file that scripts/make-template-goldens.py --random or --templates wrote, and shows where
 * our rendering is not Python's: npx tsx scripts/compare-templates.ts random.jsonl [most differences to show]
 */
import { readFileSync } from "node:fs";
import { mock } from "node:test";
import { parseExactJson } from "../src/engine/files/exact-json.ts";
import { TemplateError } from "../src/engine/text/jinja/errors.ts";
import { TemplateLimitError } from "../src/engine/text/jinja/limits.ts";
import { compileTemplate } from "../src/engine/text/jinja/template.ts";

const [file = "", most = "20"] = process.argv.slice(2);

interface Case {
  /** Of a file's rendering, whose variables are its own. */
  readonly name?: string;
  readonly variables?: Record<string, unknown>;
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
const values = scenarios.find(({ name }) => name === "values")?.variables ?? {};

// As in the script that writes the cases.
mock.timers.enable({ apis: ["Date"], now: new Date(2026, 2, 7, 15, 4, 5) });

function rendered(template: string, variables: Record<string, unknown>): { text?: string; error?: string } {
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
  // Exact, since a template tells 1.0 from 1.
  const expected = parseExactJson(line) as Case;
  const found = rendered(expected.inline, expected.variables ?? values);
  const bug = found.error?.startsWith("BUG") === true;
  if (!bug && (expected.text === undefined ? found.text === undefined : found.text === expected.text)) continue;
  if (++different > Number(most)) continue;
  console.log(expected.name ?? JSON.stringify(expected.inline));
  console.log("  python:", JSON.stringify(expected.text ?? expected.error));
  console.log("  ours:  ", found.text === undefined ? found.error : JSON.stringify(found.text));
}
console.log(`${lines.length} renderings, ${different} different`);
