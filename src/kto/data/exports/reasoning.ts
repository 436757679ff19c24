/**
 * Takes out of answers what the reader of a chat program is not meant to rate: reasoning, and of earlier answers the
 * records of tool calls. Tags are found by searching for their ends, so that the time is linear in the text.
 */

/** An answer without its reasoning. */
export interface CleanText {
  readonly text: string;
  /** Whether the text ends inside its reasoning: the model was stopped before it answered. */
  readonly isThinking: boolean;
  /** Whether a tool's call and result stand inside it. */
  readonly hasTools: boolean;
}

const toolTypes: readonly string[] = ["tool_calls", "code_interpreter"];
const closing = "</details>";

/** Takes reasoning and the records of tools out of an answer, and trims what is left. */
export function withoutReasoning(answer: string): CleanText {
  const thought = withoutThought(answer);
  const { text, isThinking, hasTools } = withoutDetails(thought.text);
  return { text: text.trim(), isThinking: thought.isThinking || isThinking, hasTools };
}

/** Takes out `<think>...</think>` at the beginning, as models write it themselves. */
function withoutThought(answer: string): { text: string; isThinking: boolean } {
  const start = /^\s*<think>/.exec(answer)?.[0].length;
  if (start === undefined) return { text: answer, isThinking: false };
  const end = answer.indexOf("</think>", start);
  return end < 0 ? { text: "", isThinking: true } : { text: answer.slice(end + "</think>".length), isThinking: false };
}

/** Takes out `<details>` of reasoning and tools. A `<details>` of another kind belongs to the answer. */
function withoutDetails(answer: string): CleanText {
  let text = "";
  let hasTools = false;
  let kept = 0;
  for (let begin = answer.indexOf("<details"); begin >= 0; begin = answer.indexOf("<details", begin)) {
    const tagEnd = endOfTag(answer, begin);
    const kind = tagEnd === undefined ? undefined : kindOf(answer, begin, tagEnd);
    if (tagEnd === undefined) break;
    if (kind === undefined) {
      begin = tagEnd;
      continue;
    }
    text += answer.slice(kept, begin);
    if (kind === "tools") hasTools = true;
    const end = answer.indexOf(closing, tagEnd);
    if (end < 0) return { text, isThinking: kind === "reasoning", hasTools };
    begin = end + closing.length;
    kept = begin;
  }
  return { text: text + answer.slice(kept), isThinking: false, hasTools };
}

function kindOf(text: string, begin: number, tagEnd: number): "reasoning" | "tools" | undefined {
  const type = /\stype="([^"]*)"/.exec(text.slice(begin, tagEnd))?.[1] ?? "";
  if (type === "reasoning") return "reasoning";
  if (toolTypes.includes(type)) return "tools";
  // Dify gives reasoning no type, and this heading.
  return /^\s*<summary>\s*Thinking\.\.\.\s*<\/summary>/.test(text.slice(tagEnd, tagEnd + 100))
    ? "reasoning"
    : undefined;
}

/** The position behind a tag's ">", which may also stand inside the quotes of an attribute. */
function endOfTag(text: string, begin: number): number | undefined {
  for (let at = begin; at < text.length; at++) {
    if (text[at] === ">") return at + 1;
    if (text[at] !== '"') continue;
    at = text.indexOf('"', at + 1);
    if (at < 0) return undefined;
  }
  return undefined;
}
