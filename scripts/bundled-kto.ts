/** The `kto` command inside the bundle of `npm run gpu-report -- --bundle`. */
import { runProcess } from "../src/cli/main.ts";

await runProcess();
