/** What `bin/kto.js` loads: runs the command line of this process. The command itself is `main` in `program.ts`. */
import { main } from "./program.ts";

// Not process.exit: text on its way into a pipe would be lost.
process.exitCode = await main(process.argv.slice(2));
