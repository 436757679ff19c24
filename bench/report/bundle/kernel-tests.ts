/** `node kernel-tests.js NAME OUTPUT`: runs one file of kernel tests of the bundle and writes vitest's JSON report. */
import { writeFileSync } from "node:fs";
import { runTests } from "./vitest.ts";

const [name = "", output = ""] = process.argv.slice(2);
const file = new URL(`./tests/${name}.js`, import.meta.url).href;

let report: unknown;
try {
  await import(file);
  const assertionResults = await runTests();
  const failed = assertionResults.some(({ status }) => status === "failed");
  report = { status: failed ? "failed" : "passed", assertionResults };
} catch (error) {
  report = { status: "failed", message: String(error), assertionResults: [] };
}
writeFileSync(output, JSON.stringify({ testResults: [report] }));
// The device that tests share is never closed and would keep the process alive.
process.exit();
