/** The quickstart's results as text: the table of figures, and two stories side by side. */
import type { Share } from "../../src/index.ts";
import type { Comparison, Measured } from "./measure.ts";
import { type Story, storyTokens } from "./stories.ts";

const columnWidth = 46;

/** The figures of base and aligned model, one line each. */
export function resultText(before: Measured, after: Measured, { win }: Comparison): string {
  const rows: [string, string, string, string][] = [
    ["", "base", "aligned", ""],
    ["judged good", share(before.good), share(after.good), `${points(after.good.share - before.good.share)} points`],
    ["  95% interval", interval(before.good), interval(after.good), ""],
    [
      "win rate",
      "",
      share(win),
      `95% interval ${interval(win)}; ${win.wins} won, ${win.ties} even, ${win.losses} lost`,
    ],
    [
      "log-prob per token",
      before.logProbPerToken.toFixed(3),
      after.logProbPerToken.toFixed(3),
      "under the base model: still its kind of story?",
    ],
    ["stories that repeat a sentence", percent(before.repeating), percent(after.repeating), ""],
    ["different three-word runs", percent(before.distinctTrigrams), percent(after.distinctTrigrams), ""],
  ];
  return rows
    .map(([name, base, aligned, note]) =>
      `${name.padEnd(32)}${base.padStart(14)}${aligned.padStart(14)}   ${note}`.trimEnd(),
    )
    .join("\n");
}

/** What `pairText` needs of a model's stories. */
type Judged = {
  readonly stories: readonly Pick<Story, "opening" | "text" | "completionIds">[];
  readonly verdicts: readonly { readonly reason: string }[];
};

/** Two stories on one opening in two columns, with their verdicts; "…" stands behind one that was cut. */
export function pairText(before: Judged, after: Judged, index: number): string {
  const column = (title: string, measured: Judged): string[] => {
    const story = measured.stories[index];
    const text = story?.text.trim().replace(/\s+/g, " ") ?? "";
    const end = (story?.completionIds.length ?? 0) < storyTokens ? "" : " …";
    return [`${title}: ${measured.verdicts[index]?.reason ?? ""}`, ...wrap(`${text}${end}`, columnWidth)];
  };
  const left = column("base", before);
  const right = column("aligned", after);
  const lines = Array.from({ length: Math.max(left.length, right.length) }, (_, line) =>
    `  ${(left[line] ?? "").padEnd(columnWidth)}   ${right[line] ?? ""}`.trimEnd(),
  );
  return `${before.stories[index]?.opening ?? ""}\n${lines.join("\n")}\n`;
}

/** Breaks text at spaces into lines of at most `width` characters; a longer word stands alone. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, line];
}

function share(value: Share): string {
  return percent(value.share);
}

function interval({ low, high }: Share): string {
  return `${(100 * low).toFixed(1)} - ${percent(high)}`;
}

function percent(value: number): string {
  return `${(100 * value).toFixed(1)}%`;
}

function points(difference: number): string {
  return `${difference < 0 ? "-" : "+"}${Math.abs(100 * difference).toFixed(1)}`;
}
