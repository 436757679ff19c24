/** `kto dashboard`: a page on this machine that shows runs, finished and running ones, as they are written. */
import { platform } from "../../engine/platform/index.ts";
import { counted, FileError, InterruptedError } from "../../errors.ts";
import { METRICS_FILE } from "../../kto/run/run-files.ts";
import { type DashboardCommandOptions, dashboardDescription } from "../descriptions/dashboard.ts";
import { command } from "../options/command.ts";
import { DashboardServer } from "../server/dashboard-server.ts";
import { pageFiles } from "../server/page-files.ts";
import type { Output } from "../terminal/output.ts";
import { withSignals } from "../terminal/signals.ts";
import { working } from "../terminal/work.ts";

export default command(dashboardDescription, runDashboard);

async function runDashboard({ folders, port }: DashboardCommandOptions, output: Output): Promise<void> {
  for (const folder of folders) {
    const found = await platform.exists(folder);
    if (found === "file") {
      throw new FileError(
        `${folder} is a file; kto dashboard takes output folders of runs, or folders that hold some.`,
      );
    }
    if (found === undefined) throw new FileError(`There is no folder ${folder}.`);
  }
  const page = await pageFiles();
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const options = { folders, port, page, onWarning: (text: string) => output.warning(text) };
  const server = await working(output, "reading the runs", (progress) => DashboardServer.start(options, progress));
  try {
    if (output.json) output.jsonLine({ address: server.address, runs: server.runs.length });
    else output.result(`dashboard: ${server.address}  (${counted(server.runs.length, "run")}; Ctrl-C ends it)`);
    if (server.runs.length === 0) {
      output.warning(
        `There is no run in ${folders.join(", ")}: a run is a folder with ${METRICS_FILE}, which kto train and kto sft write, and is looked for there and one level deeper. The page shows those that come.`,
      );
    }
    await withSignals(end, async (came) => {
      await ended;
      const signal = came();
      if (signal !== undefined && signal !== "SIGINT") {
        throw new InterruptedError(`${signal}: the dashboard has ended.`, signal);
      }
    });
  } finally {
    await server.close();
  }
}
