/**
 * Which kernels' texts ran on the machine of `wgsl/machine.ts`, at how many lanes, and the test that none is missing.
 */
import { expect, it } from "vitest";
import type { Kernel } from "../../src/kernels/kernel.ts";

/** By kernel and tile: the lanes at which its text has run. */
const ran = new Map<string, Set<number>>();

/** Keeps that a kernel's text with subgroups ran with these lanes. */
export function recordLanes({ name, variant = "", wgsl }: Kernel, lanes: number): void {
  if (!wgsl.includes("enable subgroups;")) return;
  const tile = `${name} ${variant}`.trimEnd();
  ran.set(tile, (ran.get(tile) ?? new Set()).add(lanes));
}

/**
 * The last test of a file, where lanes are emulated: prints at how many lanes each of these kernels ran, and fails
 * where one of `widths` lacks.
 */
export function expectLanes(kernels: readonly string[], widths: readonly number[]): void {
  if (widths.length === 0) return;
  it(`the texts for subgroups of ${widths.join(", ")} lanes were run`, () => {
    const lines: string[] = [];
    for (const kernel of kernels) {
      const tiles = [...ran].filter(([name]) => name.split(" ")[0] === kernel).sort(([a], [b]) => a.localeCompare(b));
      for (const [name, lanes] of tiles) lines.push(`${name} at ${[...lanes].join(", ")} emulated lanes`);
      const lanes = new Set(tiles.flatMap(([, own]) => [...own]));
      for (const width of widths) expect(lanes, kernel).toContain(width);
    }
    console.log(`${kernels.length} kernels x ${widths.length} lane widths:\n${lines.join("\n")}`);
  });
}
