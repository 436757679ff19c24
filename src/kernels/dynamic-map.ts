/**
 * The dynamic data type of eight bits (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"): which 256
 * numbers codes stand for, and how many of them share a scale.
 */

/** Numbers that share one scale, their largest magnitude. */
export const MOMENT_BLOCK = 256;

/**
 * The values of the codes, f32, ascending from -0.993 (signed) or 0 to 1. Decade i of seven reaches from 10^(i-7) to
 * 10^(i-6) and holds 2^i values of each sign, or 2^(i+1) where there is no sign, in the middles of equal parts; 0 and 1
 * complete them. As bitsandbytes has them, whose files of nested NF4 hold the signed ones.
 */
export function dynamicMap(signed: boolean): Float32Array<ArrayBuffer> {
  const values = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const parts = 2 ** (signed ? decade : decade + 1);
    // In f32 from the nearer end, as torch.linspace counts.
    const step = Math.fround(Math.fround(1 - Math.fround(0.1)) / parts);
    const bound = (part: number) =>
      2 * part < parts + 1
        ? Math.fround(Math.fround(0.1) + Math.fround(step * part))
        : Math.fround(1 - Math.fround(step * (parts - part)));
    for (let part = 0; part < parts; part++) {
      const middle = Math.fround(Math.fround(bound(part) + bound(part + 1)) / 2);
      const value = Math.fround(Math.fround(10 ** (decade - 6)) * middle);
      values.push(value);
      if (signed) values.push(-value);
    }
  }
  return Float32Array.from(values).sort();
}
