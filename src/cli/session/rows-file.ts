/**
 * rows.jsonl: the texts of the rows that stand out among the logged examples (kto/run/row-line.ts). They are decoded
 * from the token ids that the model saw, and cut; where they cannot be decoded or written, the run goes on without.
 */
import { textFolder } from "../../engine/model/config/folder.ts";
import type { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { decodeContinuation, loadTokenizer, type Tokenizer } from "../../engine/text/tokenizer.ts";
import { errorMessage, KtoError } from "../../errors.ts";
import type { Example } from "../../kto/data/types.ts";
import type { ExampleLine } from "../../kto/run/example-line.ts";
import { ROWS_FILE, type RowLine, StandingOut } from "../../kto/run/row-line.ts";
import { linesUpTo } from "../terminal/step-lines.ts";

/** Tokens and characters of each part that are kept: the prompt's last ones, the completion's first ones. */
const MOST_TOKENS = 128;
const MOST_CHARACTERS = 600;

export class RowTexts {
  readonly #path: string;
  readonly #model: Pick<Model, "folder" | "adapter">;
  readonly #examples: readonly Example[];
  readonly #warn: (sentence: string) => void;
  #standingOut = new StandingOut();
  /** Made when a text is first needed. */
  #places: ReadonlyMap<number, Example> | undefined;
  #tokenizer: Tokenizer | undefined;
  #broken = false;

  /** @param examples those that are trained on */
  constructor(
    folder: string,
    model: Pick<Model, "folder" | "adapter">,
    examples: readonly Example[],
    warn: (sentence: string) => void,
  ) {
    this.#path = platform.joinPath(folder, ROWS_FILE);
    this.#model = model;
    this.#examples = examples;
    this.#warn = warn;
  }

  /**
   * Cuts an earlier run's file back to the step from which the run goes on.
   *
   * @param before the lines of examples.jsonl up to there
   */
  async start(step: number, before: readonly ExampleLine[]): Promise<void> {
    const kept = await linesUpTo(this.#path, step);
    this.#standingOut = new StandingOut(kept.map((line) => Number((JSON.parse(line) as RowLine).index)));
    for (const line of before) this.#standingOut.take(line);
    if (kept.length > 0) await platform.writeFileAtomic(this.#path, kept.join(""));
    else if ((await platform.exists(this.#path)) === "file") await platform.removeFile(this.#path);
  }

  /** Writes the texts of the rows that stand out in a logged update and whose texts are not there yet. */
  async write(line: ExampleLine): Promise<void> {
    const indices = this.#standingOut.take(line);
    if (this.#broken || indices.length === 0) return;
    try {
      const tokenizer = await this.#loaded();
      if (tokenizer === undefined) return;
      this.#places ??= new Map(this.#examples.map((example) => [example.index, example]));
      const rows = indices.flatMap((index): RowLine[] => {
        const example = this.#places?.get(index);
        return example === undefined ? [] : [{ step: line.step, index, ...textsOf(example, tokenizer) }];
      });
      if (rows.length === 0) return;
      await platform.append(this.#path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    } catch (error) {
      if (!(error instanceof KtoError)) throw error;
      this.#broken = true;
      this.#warn(`${errorMessage(error)} The training goes on, and writes no texts of rows.`);
    }
  }

  /** undefined for a model that has none, whose rows are token ids. */
  async #loaded(): Promise<Tokenizer | undefined> {
    if (this.#tokenizer) return this.#tokenizer;
    const folder = await textFolder(this.#model);
    if ((await platform.exists(platform.joinPath(folder, "tokenizer.json"))) !== "file") {
      this.#broken = true;
      return undefined;
    }
    this.#tokenizer = await loadTokenizer(folder);
    return this.#tokenizer;
  }
}

function textsOf({ promptIds, completionIds, label }: Example, tokenizer: Tokenizer): Omit<RowLine, "step" | "index"> {
  // Rows of token ids may have some that the tokenizer lacks.
  const known = (ids: Uint32Array) => ids.filter((id) => id < tokenizer.vocabSize);
  const [before, after] = [known(promptIds.slice(-MOST_TOKENS)), known(completionIds.slice(0, MOST_TOKENS))];
  const prompt = tokenizer.decode(before, { skipSpecialTokens: true });
  const completion = decodeContinuation(tokenizer, before, after);
  const [isPromptCut, isCut] = [promptIds.length > MOST_TOKENS, completionIds.length > MOST_TOKENS];
  const end = prompt.slice(-MOST_CHARACTERS);
  const beginning = completion.slice(0, MOST_CHARACTERS);
  return {
    label,
    prompt: isPromptCut || end.length < prompt.length ? `… ${end}` : end,
    completion: isCut || beginning.length < completion.length ? `${beginning} …` : beginning,
  };
}
