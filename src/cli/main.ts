/** What `bin/kto.js` loads: runs the command line of this process. The command itself is `main` in `program.ts`. */
import { main } from "./program.ts";

process.exitCode = await main(process.argv.slice(2));
// A judge's module may leave something open that would keep the process alive for ever. Text on its way into a pipe goes
// out first.
process.stdout.write("", () => process.stderr.write("", () => setTimeout(() => process.exit(), 100).unref()));
