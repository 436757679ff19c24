/** A whole report: runs the parts, puts their findings together, writes the JSON and the page. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import * as z from "zod";
import { ConfigError, errorMessage, KtoError } from "../../src/errors.ts";
import { seconds } from "./budget.ts";
import { exitCodeOf, type PartContext, type PartReport, type Report, resultsOf } from "./finding.ts";
import type { Host } from "./host.ts";
import { renderPage } from "./page.ts";
import { partSeconds, parts, runPart, runPartHere } from "./parts.ts";

const usage = ({
  command,
  out,
  ownOptions,
}: Host) => `Usage: ${command} [--quick] [--minutes N] [--adapter NAME] [--out FOLDER]

  --quick         small models and few cases, in about a minute
  --minutes N     time for all parts together; what does not fit is left out and named (default 10, quick 1)
  --adapter NAME  auto, hardware, lavapipe, swiftshader, a number or a part of a name (default: KTO_ADAPTER or auto)
  --out FOLDER    where the JSON and the page go (default ${out})${ownOptions.map((line) => `\n  ${line}`).join("")}`;

/** The command line of a report. @returns the exit code */
export async function reportCommand(words: readonly string[], host: Host): Promise<number> {
  try {
    const options = readOptions(words, host);
    if (options.help) {
      console.log(usage(host));
      return 0;
    }
    if (options.part !== undefined) {
      await runPartHere(options.part, JSON.parse(options.context ?? "{}") as PartContext, host);
      return 0;
    }
    return await makeReport(options, host);
  } catch (error) {
    console.error(`error: ${error instanceof KtoError ? error.message : (error as Error).stack}`);
    return error instanceof KtoError ? error.exitCode : 1;
  }
}

export interface ReportOptions {
  readonly quick: boolean;
  readonly minutes: number;
  readonly adapter: string | undefined;
  readonly out: string;
}

function readOptions(words: readonly string[], host: Host) {
  try {
    const { values } = parseArgs({
      args: [...words],
      options: {
        quick: { type: "boolean", default: false },
        minutes: { type: "string" },
        adapter: { type: "string" },
        out: { type: "string", default: host.out },
        help: { type: "boolean", short: "h", default: false },
        // How a report starts its parts.
        part: { type: "string" },
        context: { type: "string" },
      },
    });
    const minutes = Number(values.minutes ?? (values.quick ? 1 : 10));
    if (!(minutes > 0)) throw new Error(`--minutes is "${values.minutes}"; it must be a number above 0`);
    return { ...values, adapter: values.adapter, minutes };
  } catch (error) {
    throw new ConfigError(`${errorMessage(error)}.\n${usage(host)}`);
  }
}

/** Runs all parts and writes both files. @returns the exit code */
export async function makeReport(options: ReportOptions, host: Host): Promise<number> {
  const out = resolve(options.out);
  const scratch = mkdtempSync(join(tmpdir(), "kto-gpu-report-"));
  // The tuner measures afresh, so that its choices are this report's; parts inherit both.
  process.env.KTO_CACHE = join(scratch, "cache");
  if (options.adapter !== undefined) process.env.KTO_ADAPTER = options.adapter;
  try {
    mkdirSync(out, { recursive: true });
    const report = await assemble(options, host, scratch);
    const name = fileName(report);
    const file = `${name}.json`;
    writeFileSync(join(out, file), `${JSON.stringify(report, null, 1)}\n`);
    const page = renderPage(report, { file, issues: host.issues });
    writeFileSync(join(out, `${name}.txt`), page);
    console.log(`\n${page}\nBoth are in ${out}.`);
    return exitCodeOf(report);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function assemble(options: ReportOptions, host: Host, scratch: string): Promise<Report> {
  const total = 60 * options.minutes;
  const start = performance.now();
  const done: PartReport[] = [];
  let report = reportOf(options, host, done, {});
  for (const [index, part] of parts.entries()) {
    const given = partSeconds(index, total, (performance.now() - start) / 1000);
    const measured = resultsOf(report, "adapter").get("peaks") as PartContext["peaks"];
    console.log(`${part.title} (at most ${seconds(given)}) ...`);
    done.push(await runPart(part, { seconds: given, scratch, quick: options.quick, peaks: measured }, host));
    report = reportOf(options, host, done, {});
    // Without one nothing else can run, and why there is none has been found by now.
    if (part.name === "adapter" && report.adapter === null) break;
  }
  return reportOf(options, host, done, tuningIn(join(scratch, "cache", "tuning")));
}

function reportOf(
  { quick, minutes }: ReportOptions,
  host: Host,
  parts: readonly PartReport[],
  tuning: Report["tuning"],
): Report {
  const date = new Date().toISOString();
  const machine = {
    node: process.version,
    os: `${process.platform} ${process.arch} ${release()}`,
    processor: cpus()[0]?.model.trim() ?? "unknown processor",
    cpus: availableParallelism(),
    memory_bytes: totalmem(),
  };
  const report: Report = {
    ...{ version: 1, date, quick, minutes, software: null, adapter: null, machine, versions: host.versions },
    ...{ commit: host.commit, parts, tuning },
  };
  const adapter = resultsOf(report, "adapter").get("adapter");
  return adapter === undefined
    ? report
    : { ...report, adapter: String(adapter.name), software: adapter.software === true };
}

const tuningFile = z.object({ choices: z.record(z.string(), z.string()) });

/** What the tuner has written in the course of the report: a file for each adapter, of which there is one. */
function tuningIn(folder: string): Record<string, string> {
  try {
    const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
    const texts = files.map((name) => readFileSync(join(folder, name), "utf8"));
    return Object.assign({}, ...texts.map((text) => tuningFile.parse(JSON.parse(text)).choices));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {}; // nothing was measured
    throw error;
  }
}

/** Adapter and date, as a file's name. */
export function fileName({ adapter, date, software }: Pick<Report, "adapter" | "date" | "software">): string {
  const slug = (adapter ?? "no-adapter")
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return `${date.slice(0, 10)}-${software ? "software-" : ""}${slug.slice(0, 60).replace(/[-.]+$/, "")}`;
}
