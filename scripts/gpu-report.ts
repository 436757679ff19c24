/** `npm run gpu-report`: the report from a checkout. `--bundle [FILE]` packs it for a machine that has none. */
import { basename, join } from "node:path";
import { checkout } from "../bench/report/checkout.ts";
import { reportCommand } from "../bench/report/report.ts";
import { mebibytes } from "../src/errors.ts";

const [first, file = join("out", "kto-gpu-report.sh"), ...rest] = process.argv.slice(2);
if (first !== "--bundle") process.exitCode = await reportCommand(process.argv.slice(2), checkout);
else if (rest.length > 0 || file.startsWith("-")) {
  console.error("error: --bundle stands alone or before the name of the file to write.");
  process.exitCode = 2;
} else {
  // esbuild is loaded for this alone.
  const { packBundle } = await import("../bench/report/bundle/pack.ts");
  const bytes = await packBundle(file, checkout);
  console.log(`${file}: ${mebibytes(bytes)}. On the other machine: sh ${basename(file)}`);
}
