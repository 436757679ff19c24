/** `kto doctor` on machines that this one is not: two adapters, none. */
import { describe, expect, test } from "vitest";
import { type DoctorReport, doctor, fasterThan } from "../../../src/cli/commands/doctor.ts";
import type { DoctorOptions } from "../../../src/cli/descriptions/doctor.ts";
import { Output } from "../../../src/cli/terminal/output.ts";
import type { FoundAdapter, Platform } from "../../../src/engine/platform/platform.ts";
import { AdapterError } from "../../../src/errors.ts";
import { CapturedStream } from "../../helpers/streams.ts";

function fakeAdapter(kind: FoundAdapter["kind"], description: string, features: string[]): FoundAdapter {
  const adapter = {
    features: new Set(features),
    info: { subgroupMinSize: 8, subgroupMaxSize: 8 },
    limits: { maxBufferSize: 2 ** 32, maxStorageBufferBindingSize: 2 ** 27, maxStorageBuffersPerShaderStage: 8 },
  };
  return { kind, description, adapter: adapter as unknown as GPUAdapter };
}

/** The best of `found`, or the sentence of a platform that has none. */
function fakePlatform(found: FoundAdapter[]): Platform {
  return {
    listAdapters: async () => found,
    requestAdapter: async () => {
      const [best] = found;
      if (best === undefined) throw new AdapterError("No WebGPU adapter was found: install a driver.");
      return best;
    },
  } as unknown as Platform;
}

async function run(found: FoundAdapter[], options: Partial<DoctorOptions> = {}): Promise<string> {
  const stdout = new CapturedStream();
  const all: DoctorOptions = {
    ...{ adapter: "auto", model_revision: "main", json: false, log_level: "info", debug: false },
    ...options,
  };
  const output = new Output({ stdout, stderr: new CapturedStream() }, all);
  const failure = await doctor(fakePlatform(found), all, output).catch((error: unknown) => error);
  if (found.length === 0) expect(failure).toBeInstanceOf(AdapterError);
  else expect(failure).toBeUndefined();
  return stdout.text;
}

const gpu = fakeAdapter("hardware", "nvidia ada RTX 4090", ["shader-f16", "subgroups"]);
const lavapipe = fakeAdapter("lavapipe", "llvmpipe", ["timestamp-query"]);

describe("doctor", () => {
  test("marks the chosen adapter, says why, and lists what it can do", async () => {
    const text = await run([gpu, lavapipe]);
    expect(text).toMatch(/^\* 0 {2}hardware: nvidia ada RTX 4090\n {5}chosen: a GPU comes first\n/m);
    expect(text).toMatch(/^ {2}1 {2}lavapipe: llvmpipe\n/m);
    expect(text).toContain("features: shader-f16, subgroups, no timestamp-query");
    expect(text).toContain("maxStorageBufferBindingSize: 128 MiB");
    expect(text).toContain(`Node ${process.version}`);
    expect(text).not.toContain("Faster:");
  });

  test("a software adapter comes with the remedy", async () => {
    expect(await run([lavapipe])).toContain("Faster: this is a software adapter: a GPU");
    expect(fasterThan("swiftshader", "linux")).toContain("scripts/install-lavapipe.sh");
    expect(fasterThan("swiftshader", "win32")).not.toContain("lavapipe");
  });

  test("--json is one object on one line", async () => {
    const text = await run([gpu, lavapipe], { json: true });
    expect(text.trimEnd()).not.toContain("\n");
    const report = JSON.parse(text) as DoctorReport;
    expect(report.adapters.map(({ kind, chosen }) => [kind, chosen])).toEqual([
      ["hardware", true],
      ["lavapipe", false],
    ]);
    expect(report.packages["kto-webgpu"]).toMatch(/^\d/);
    expect(report.packages.webgpu).toMatch(/^\d/);
  });

  test("without an adapter the rest is still printed, and the failure is the platform's sentence", async () => {
    expect(await run([])).toContain("No adapter found.");
    const report = JSON.parse(await run([], { json: true })) as DoctorReport;
    expect(report).toMatchObject({ adapters: [], reason: null, error: expect.stringContaining("install a driver") });
  });
});
