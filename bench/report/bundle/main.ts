/** The report as the bundle runs it: everything that it needs lies in the folder that the bundle was unpacked to. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import type { Host } from "../host.ts";
import { reportCommand } from "../report.ts";

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);
/** Written by `pack.ts`. */
const packed = z
  .object({
    commit: z.string().nullable(),
    issues: z.string().nullable(),
    versions: z.record(z.string(), z.string().nullable()),
    kernelTests: z.array(z.string()),
  })
  .parse(JSON.parse(readFileSync(join(root, "bundle.json"), "utf8")));

const host: Host = {
  ...packed,
  root,
  command: "sh kto-gpu-report.sh",
  out: "kto-gpu-report",
  ownOptions: [],
  self: [join(here, "main.js")],
  kto: [join(here, "kto.js")],
  kernelTestCommand: (name, output) => [join(here, "kernel-tests.js"), name, output],
};

process.exitCode = await reportCommand(process.argv.slice(2), host);
