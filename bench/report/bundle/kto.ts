/** The `kto` command of the bundle. */
import { runProcess } from "../../../src/cli/main.ts";

await runProcess();
