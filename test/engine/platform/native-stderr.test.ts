/**
 * Descriptor 2 is silenced in commands alone: in a program, another thread could open a file in its place meanwhile.
 */
import { spawnSync } from "node:child_process";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";

const platform = pathToFileURL("src/engine/platform/index.ts").href;

test("a program that uses the library keeps its stderr, whatever it opens while adapters are looked for", () => {
  const program = `
    import { open } from "node:fs/promises";
    import { readlinkSync } from "node:fs";
    import { platform } from ${JSON.stringify(platform)};
    const before = readlinkSync("/proc/self/fd/2");
    let done = false;
    const opening = Array.from({ length: 4 }, async () => {
      while (!done) await (await open("/etc/hostname")).close();
    });
    for (let i = 0; i < 20; i++) await platform.requestAdapter().catch(() => undefined);
    done = true;
    await Promise.all(opening);
    console.log(readlinkSync("/proc/self/fd/2") === before);`;
  const { stdout } = spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  expect(stdout.trim()).toBe("true");
});
