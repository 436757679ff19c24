/**
 * Quantising on the host against the bytes of bitsandbytes and ggml, and the numbers that bytes stand for, bit for bit.
 */
import { afterAll, describe, expect, it } from "vitest";
import { openSafetensors } from "../../src/engine/files/safetensors.ts";
import { withSavedCodes } from "../../src/engine/model/weights/bitsandbytes.ts";
import { tensorTable } from "../../src/engine/model/weights/weight-files.ts";
import { storedPieces } from "../../src/engine/model/weights/weight-transfer.ts";
import { nested, quantized, unnested } from "../../src/engine/quantized-formats.ts";
import { dequantized } from "../../src/kernels/float64/stored.ts";

const folder = "test/fixtures/quantised";
const open = (name: string) => openSafetensors(`${folder}/${name}.safetensors`);
const files = {
  ggml: await open("ggml"),
  nf4: await open("nf4"),
  "nf4-expected": await open("nf4-expected"),
  "nf4-double": await open("nf4-double"),
  "nf4-double-expected": await open("nf4-double-expected"),
};
afterAll(async () => {
  for (const file of Object.values(files)) await file.close();
});

/** So that -0 and 0 differ. */
const bits = (values: Float32Array) => [...new Uint32Array(values.buffer, values.byteOffset, values.length)];

it("8 bit has the codes, scales and numbers of ggml's q8_0", async () => {
  const blocks = Buffer.from(await files.ggml.read("q8_0.bytes"));
  const { codes, scales } = quantized("int8", await files.ggml.readF32("input"));
  const count = scales.length;
  expect(codes.length).toBe(32 * count);
  const ofBlocks = Array.from({ length: count }, (_, block) => [...blocks.subarray(34 * block + 2, 34 * block + 34)]);
  expect([...codes]).toEqual(ofBlocks.flat());
  expect(bits(dequantized("int8", codes, scales))).toEqual(bits(await files.ggml.readF32("q8_0.dequantised")));
});

describe.each([
  ["nf4", "nf4-expected"],
  ["nf4-double", "nf4-double-expected"],
] as const)("%s of bitsandbytes", (saved, expected) => {
  const names = [...files[saved].tensors.keys()].filter((name) => name.endsWith(".weight"));

  it.each(names)("%s: the same bytes, and the same numbers from them", async (name) => {
    const input = await files[expected].readF32(`${name}.input`);
    const wanted = bits(await files[expected].readF32(name));
    const { codes, scales } = quantized("nf4", input);
    expect([...codes]).toEqual([...(await files[saved].read(name))]);
    if (saved === "nf4") {
      expect(bits(scales)).toEqual(bits(await files[saved].readF32(`${name}.absmax`)));
      expect(bits(dequantized("nf4", codes, scales, input.length))).toEqual(wanted);
      return;
    }
    const second = nested(scales);
    expect([...second.codes]).toEqual([...(await files[saved].read(`${name}.absmax`))]);
    expect(bits(second.table)).toEqual(bits(await files[saved].readF32(`${name}.nested_quant_map`)));
    // bitsandbytes' offset is a mean in f32, whose last bit depends on the order of its sum, and what it leaves is scaled.
    const unit = 2 ** -23 * (second.offset + Math.max(...second.scales));
    const found = await files[expected].readF32(name);
    const values = dequantized("nf4", codes, unnested(second), input.length);
    const off = values.map((value, i) => Math.abs(value - (found[i] ?? Number.NaN)));
    expect(Math.max(...off)).toBeLessThanOrEqual(unit);
  });

  it.each(names)("%s is read from its file as the same numbers", async (name) => {
    const tensors = await withSavedCodes(tensorTable([files[saved]]));
    expect([...tensors.keys()].sort()).toEqual([...names].sort());
    const values: number[] = [];
    for await (const piece of storedPieces({ path: folder, tensors, close: async () => undefined }, name)) {
      values.push(...piece);
    }
    expect(bits(Float32Array.from(values))).toEqual(bits(await files[expected].readF32(name)));
  });
});

describe("what has no numbers", () => {
  it("a block of zeros has the scale 0 and gives zeros", () => {
    for (const format of ["nf4", "int8"] as const) {
      const { codes, scales } = quantized(format, new Float32Array(128));
      expect([...dequantized(format, codes, scales)].map(Math.abs)).toEqual(new Array(128).fill(0));
    }
  });

  it("codes that are fewer than the numbers are no matrix", () => {
    expect(() => dequantized("nf4", new Uint8Array(3), [1], 7)).toThrow(RangeError);
    expect(() => dequantized("int8", new Uint8Array(33), [1], 33)).toThrow(RangeError);
  });
});
