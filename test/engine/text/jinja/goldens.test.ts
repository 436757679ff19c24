/**
 * Chat templates as Python's jinja2 renders them with transformers' settings: scripts/make-template-goldens.py wrote
 * the goldens. Templates are ours, covering the language, and those of real models, which are read from their packages.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { parseExactJson } from "../../../../src/engine/files/exact-json.ts";
import { type ChatTemplate, createChatTemplate, loadChatTemplate } from "../../../../src/engine/text/chat-template.ts";
import { TemplateError } from "../../../../src/engine/text/jinja/errors.ts";
import { ModelFormatError } from "../../../../src/errors.ts";
import { tokenizerFolders } from "../../../helpers/tokenizers.ts";

const folder = "test/fixtures/templates";
const read = (name: string) => readFileSync(join(folder, name), "utf8");

interface Scenario {
  readonly name: string;
  readonly variables: {
    readonly messages?: readonly Record<string, unknown>[];
    readonly tools?: readonly unknown[];
    readonly add_generation_prompt?: boolean;
    readonly [name: string]: unknown;
  };
}

interface Golden {
  readonly package?: string;
  readonly template?: string;
  readonly expression?: string;
  /** The text of a random template. */
  readonly inline?: string;
  readonly scenario?: string;
  /** What Python wrote, */
  readonly text?: string;
  /** or the class of what it raised, with the words of raise_exception. */
  readonly error?: string;
  readonly message?: string;
}

const own = JSON.parse(read("templates.json")) as {
  templates: { name: string; text: string }[];
  expressions: string[];
};
const scenarios = parseExactJson(read("scenarios.json")) as Scenario[];
const [, ...goldens] = read("goldens.jsonl")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Golden);

const texts = new Map(own.templates.map(({ name, text }) => [name, text]));

async function templateOf(golden: Golden): Promise<ChatTemplate> {
  if (golden.package !== undefined) {
    const family = Object.values(tokenizerFolders).find((path) => path.includes(`${golden.package}/`));
    const template = family === undefined ? undefined : await loadChatTemplate(family);
    if (template === undefined) throw new Error(`no template of ${golden.package}`);
    return template;
  }
  const given = golden.inline ?? (golden.expression === undefined ? undefined : `{{ ${golden.expression} }}`);
  const text = given ?? texts.get(golden.template ?? "");
  if (text === undefined) throw new Error(`no template ${golden.template}`);
  return createChatTemplate(text, {}, "t.jinja");
}

/** What our own rendering says, in the form of a golden. */
async function rendered(golden: Golden): Promise<Pick<Golden, "text" | "error" | "message">> {
  const variables = scenarios.find(({ name }) => name === (golden.scenario ?? "values"))?.variables;
  if (variables === undefined) throw new Error(`no scenario ${golden.scenario}`);
  const { messages = [], tools, add_generation_prompt: addGenerationPrompt = false, ...others } = variables;
  try {
    const template = await templateOf(golden);
    const options = { addGenerationPrompt, variables: others, ...(tools === undefined ? {} : { tools }) };
    return { text: template.render(messages, options) };
  } catch (error) {
    if (!(error instanceof ModelFormatError)) throw error;
    // The class that our engine gives the refusal, never the golden's: an engine that refuses everything alike must
    // fail.
    if (!(error.cause instanceof TemplateError)) throw error;
    const { kind, message } = error.cause;
    return golden.message === undefined ? { error: kind } : { error: kind, message };
  }
}

beforeAll(() => {
  // The date of strftime_now in the goldens.
  vi.useFakeTimers({ now: new Date(2026, 2, 7, 15, 4, 5), toFake: ["Date"] });
});
afterAll(() => {
  vi.useRealTimers();
});

describe("renders, or refuses, as Python does", () => {
  const parts = {
    "the templates of the tokenizer packages": goldens.filter((golden) => golden.package !== undefined),
    "templates with every construct": goldens.filter((golden) => golden.template !== undefined),
    expressions: goldens.filter((golden) => golden.expression !== undefined),
    "random templates": goldens.filter((golden) => golden.inline !== undefined),
  };

  it.each(Object.entries(parts))("%s", async (_, part) => {
    for (const golden of part) {
      const { text, error, message, ...what } = golden;
      const found = await rendered(golden);
      expect({ ...what, ...found }).toEqual(golden);
    }
  });

  it("in at least 300 renderings, of which many are refused, and all of ours are among them", () => {
    expect(goldens.length).toBeGreaterThan(300);
    expect(goldens.filter(({ error }) => error !== undefined).length).toBeGreaterThan(100);
    expect(new Set(goldens.map(({ template }) => template).filter(Boolean)).size).toBe(own.templates.length);
    expect(goldens.filter(({ expression }) => expression !== undefined).map(({ expression }) => expression)).toEqual(
      own.expressions,
    );
    expect(new Set(goldens.map((golden) => golden.package).filter(Boolean)).size).toBeGreaterThanOrEqual(2);
  });
});
