/**
 * How rows that are too long are cut, against TRL 0.24's and LLaMA-Factory's own functions (scripts/truncations.py wrote
 * the fixture). What is ours: a BOS is one of the tokens of a prompt, and no EOS follows a cut.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import { checkTruncation, keptTokens } from "../../../src/kto/data/truncation.ts";

type Mode = "keep_start" | "keep_end" | "proportional";
type Row = [
  mode: Mode,
  prompt: number,
  completion: number,
  length: number,
  limit: number | null,
  kept: unknown,
  rest: unknown,
];

const rows: Row[] = JSON.parse(readFileSync(join(import.meta.dirname, "../../fixtures/truncations.json"), "utf8"));

function kept([truncationMode, prompt, completion, maxLength, limit]: Row) {
  return keptTokens(prompt, completion, true, { truncationMode, maxLength, maxPromptLength: limit ?? undefined });
}

describe("rows of the fixture", () => {
  test.each(["keep_start", "keep_end"] as const)("%s cuts as TRL 0.24 did", (mode) => {
    const own = rows.filter(([one]) => one === mode);
    expect(own.length).toBeGreaterThan(50);
    for (const row of own) {
      const [, prompt, completion, maxLength, , theirPrompt, theirRest] = row as [...Row] & {
        5: number[];
        6: number[];
      };
      const ids = [1, ...Array.from({ length: prompt - 1 }, (_, i) => 100 + i)];
      const answer = [...Array.from({ length: completion - 1 }, (_, i) => 200 + i), 2];
      const { head, tail, completion: length } = kept(row);
      const ours = [...ids.slice(0, head), ...(tail > 0 ? ids.slice(-tail) : [])];
      // TRL put the BOS back before the tokens that it kept, and an EOS after a cut completion.
      const withoutBos = (list: readonly number[]) => list.filter((id) => id !== 1);
      const slack = mode === "keep_end" && theirPrompt.length > ours.length ? 1 : 0;
      expect(withoutBos(ours)).toEqual(withoutBos(theirPrompt).slice(slack));
      expect(ours[0]).toBe(1);
      const cut = length < completion;
      expect([...answer.slice(0, length), ...(cut ? [2] : [])]).toEqual(theirRest);
      if (cut || tail > 0) expect(ours.length + length).toBeLessThanOrEqual(maxLength);
    }
  });

  it("proportional cuts as LLaMA-Factory does", () => {
    const own = rows.filter(([mode]) => mode === "proportional");
    expect(own.length).toBeGreaterThan(50);
    for (const row of own) {
      const { head, tail, completion } = kept(row);
      expect([head, tail, completion]).toEqual([row[5], 0, row[6]]);
    }
  });
});

describe("keptTokens", () => {
  it("cuts completions alone where nothing is asked for", () => {
    expect(keptTokens(6, 9, true, { maxLength: 10 })).toEqual({ head: 6, tail: 0, completion: 4 });
    expect(keptTokens(6, 4, true, { maxLength: 10 })).toEqual({ head: 6, tail: 0, completion: 4 });
  });

  it("keeps the last tokens of a prompt without BOS", () => {
    expect(keptTokens(8, 9, false, { maxLength: 10, maxPromptLength: 3 })).toEqual({ head: 0, tail: 3, completion: 7 });
  });

  test.each([
    [{ maxLength: 512, truncationMode: "keep_end" }, "prompts are cut to max_prompt_length 512, which leaves nothing"],
    [{ maxLength: 10, maxPromptLength: 10 }, "set max_prompt_length below it"],
    [{ maxLength: 10, maxPromptLength: 3, truncationMode: "proportional" }, 'no use beside truncation_mode "proport'],
  ] as const)("%j is refused", (rules, message) => {
    expect(() => checkTruncation(rules)).toThrow(message);
  });
});
