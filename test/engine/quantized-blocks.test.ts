/** The bytes of quantised blocks against those that ggml's own functions gave (test/fixtures/quantised). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSafetensors, type SafetensorsFile } from "../../src/engine/files/safetensors.ts";
import { BLOCK, quantizeQ4, quantizeQ8 } from "../../src/engine/quantized-blocks.ts";

let file: SafetensorsFile;
beforeAll(async () => {
  file = await openSafetensors("test/fixtures/quantised/ggml.safetensors");
});
afterAll(() => file.close());

describe.each([
  ["q8_0", quantizeQ8],
  ["q4_0", quantizeQ4],
] as const)("%s", (name, quantize) => {
  test("writes ggml's bytes: outliers, zeros, tiny and large scales, ties", async () => {
    const bytes = quantize(await file.readF32("input"));
    expect(Buffer.from(bytes).equals(Buffer.from(await file.read(`${name}.bytes`)))).toBe(true);
  });

  test("a block does not depend on the others", async () => {
    const input = await file.readF32("input");
    const alone = input.slice(3 * BLOCK, 4 * BLOCK);
    const bytes = quantize(alone);
    expect(bytes).toEqual(quantize(input).slice(3 * bytes.length, 4 * bytes.length));
  });
});
