/**
 * One finished WGSL text of each kernel, kept beside this file, so that a reader sees what the texts are put together
 * to and a review what a change makes of them. `npx vitest run test/kernels/texts.test.ts -u` writes them; in CI a text
 * that differs fails. That a text is right, the kernel's own test shows.
 */

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { kernelTexts, textOf } from "../../src/kernels/texts.ts";

const SOURCES = fileURLToPath(new URL("../../src/kernels/", import.meta.url));
const FOLDER = fileURLToPath(new URL("texts/", import.meta.url));

describe("the finished text", () => {
  const files = kernelTexts.map((text) => ({ file: `${text.kernel.name}${text.suffix ?? ""}.wgsl`, text }));

  it.each(files)("is that of $file", async ({ file, text }) => {
    await expect(textOf(text)).toMatchFileSnapshot(`${FOLDER}${file}`);
  });

  it("is kept of every kernel that the sources declare", () => {
    const declared = readdirSync(SOURCES)
      .filter((file) => file.endsWith(".ts"))
      .flatMap((file) => [...readFileSync(`${SOURCES}${file}`, "utf8").matchAll(/\bname: ["`](\w{2,})/g)])
      .map(([, name = ""]) => name);
    expect(declared.length).toBeGreaterThan(50);
    expect(declared.filter((name) => !files.some(({ file }) => file.startsWith(name)))).toEqual([]);
  });

  it("is kept of these kernels and no others", () => {
    expect(readdirSync(FOLDER).sort()).toEqual(files.map(({ file }) => file).sort());
  });
});
