/** A process that the system gives too little of something is told so; nothing of it is called a bug. */
import { spawnSync } from "node:child_process";
import { cpSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { systemLimit } from "../../../src/cli/terminal/system-limits.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { ResourceError } from "../../../src/errors.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

function thrownBy(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

const withCode = (code: string, message: string) => Object.assign(new Error(message), { code });

test("memory: V8 has none for an ArrayBuffer, or for WebAssembly", () => {
  const limit = systemLimit(thrownBy(() => new ArrayBuffer(2 ** 52)));
  expect(limit).toBeInstanceOf(ResourceError);
  expect(limit?.message).toMatch(/^The system gives this process no more memory \(.*\): free some, /);
  const words = "WebAssembly.Instance(): Out of memory: Cannot allocate Wasm memory for new instance";
  expect(systemLimit(new RangeError(words))?.message).toContain(words);
});

test("files: Node's error, and a module that it then takes for missing", () => {
  const open = systemLimit(withCode("EMFILE", "EMFILE: too many open files, open 'a'"));
  expect(open?.message).toBe(
    "Too many files are open (EMFILE: too many open files, open 'a'): allow more of them, such as ulimit -n 4096.",
  );
  expect(systemLimit(withCode("ERR_MODULE_NOT_FOUND", "Cannot find package 'yaml'"))?.message).toContain("ulimit -n");
});

test("a range that we get wrong is a bug still", () => {
  expect(systemLimit(thrownBy(() => new Float32Array(-1)))).toBeUndefined();
  expect(systemLimit(thrownBy(() => "a".repeat(2 ** 40)))).toBeUndefined();
  expect(systemLimit(new Error("out of memory"))).toBeUndefined();
});

test("a command that may open too few files", async () => {
  // Which file is the first that Node may not open depends on the machine, so the limit is met at a place of our
  // choice.
  vi.spyOn(platform, "exists").mockRejectedValue(withCode("EMFILE", "EMFILE: too many open files, open 'rows.jsonl'"));
  const { code, stderr } = await kto("data", "--dataset_name", "rows.jsonl");
  vi.restoreAllMocks();
  expect([code, stderr]).toEqual([10, expect.stringMatching(/^error: Too many files .*ulimit -n 4096\.\n$/)]);
});

test.runIf(process.platform === "linux")(
  "two gigabytes of address space are enough to build a checkout and start",
  () => {
    const checkout = temporaryFolder();
    const root = process.cwd();
    for (const name of ["bin", "src", "bench", "scripts", "package.json"])
      cpSync(join(root, name), join(checkout, name), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(checkout, "node_modules"));
    const command = `ulimit -v 2000000; exec "${process.execPath}" "${join(checkout, "bin", "kto.js")}" --version`;
    const { status, stdout, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
    expect([status, stdout, stderr]).toEqual([0, expect.stringMatching(/^\d+\.\d+\.\d+\n$/), ""]);
  },
);

test.runIf(process.platform === "linux")(
  "with less, a command says so before V8 or the driver could end it without a word",
  () => {
    const command = `ulimit -v 1000000; exec "${process.execPath}" bin/kto.js data --dataset_name nothing.jsonl`;
    const { status, stdout, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
    const sentence = /^error: ulimit -v gives this process 1\.0 GB of addresses, and it reserves 2\.6 GB: allow more/;
    expect([status, stdout, stderr]).toEqual([10, "", expect.stringMatching(sentence)]);
  },
);
