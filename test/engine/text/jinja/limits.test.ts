/** What a template may use: steps, text and depth; and that the file and the limit are named. */
import { describe, expect, it } from "vitest";
import { Budget, TemplateLimitError } from "../../../../src/engine/text/jinja/limits.ts";
import { compileTemplate } from "../../../../src/engine/text/jinja/template.ts";

/** A thousandth of what a rendering may use otherwise, so that the tests are short. */
const limits = { steps: 10_000, characters: 20_000, depth: 30 };

function refusal(text: string, given = limits): Error {
  try {
    compileTemplate(text, "evil.jinja", given).render({});
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error(`${text} was rendered`);
}

const grow = (step: string, start = "'aaaaaaaa'") =>
  `{% set ns = namespace(s=${start}) %}{% for i in range(100) %}{% set ns.s = ${step} %}{% endfor %}{{ ns.s }}`;

describe("a template that would not end, or grow without end, is refused", () => {
  it.each([
    [
      "loops within loops",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      /10000 steps/,
    ],
    ["long lists", "{% for a in range(9) %}{% set x = range(99999) | list %}{% endfor %}", /10000 steps/],
    ["lists that double", grow("ns.s + ns.s", "[1]"), /10000 steps/],
    ["lists times a number", "{{ [1] * 1000000000 }}", /10000 steps/],
    ["lists within lists, written", grow("[ns.s, ns.s]", "[1]"), /10000 steps/],
    [
      "lists within lists, as JSON",
      grow("[ns.s, ns.s]", "[1]").replace("{{ ns.s }}", "{{ ns.s | tojson }}"),
      /10000 steps/,
    ],
    [
      "lists within lists, compared",
      grow("[ns.s, ns.s]", "[1]").replace("{{ ns.s }}", "{{ ns.s == [ns.s] + ns.s }}{{ [ns.s] == [ns.s] }}"),
      /10000 steps/,
    ],
    [
      "reading a long text again and again",
      "{% set s = 'a' * 9000 %}{% for i in range(999) %}{{ s.count('b') }}{% endfor %}",
      /10000 steps/,
    ],
    ...["rfind(b)", "rindex(b)", "rpartition(b)", "rsplit(b)"].map((searched): [string, string, RegExp] => [
      `searching a long text from its end for a long one: ${searched}`,
      `{% set b = 'b' + 'a' * 900 %}{{ ('a' * 1900).${searched} }}`,
      /10000 steps/,
    ]),
    ...["'a' | center(-9999)", "'a'.center(-9999)", "'a'.ljust(-9999)", "'a'.rjust(-9999)", "'a'.zfill(-9999)"].map(
      (widened): [string, string, RegExp] => [
        `widths below zero, which give no steps back: ${widened}`,
        `{% for a in range(9999) %}{{ ${widened} }}{% endfor %}`,
        /10000 steps/,
      ],
    ),
    ...["s.title()", "s | title", "s | capitalize", "s.swapcase()", "s.isalpha()", "s.istitle()", "s.expandtabs()"].map(
      (costly): [string, string, RegExp] => [
        `work letter by letter: ${costly}`,
        `{% set s = 'a' * 3000 %}{% for a in range(4) %}{% set x = ${costly} %}{% endfor %}`,
        /10000 steps/,
      ],
    ),
    [
      "quotients of long integers",
      "{% set n = 3 ** 5000 %}{% for a in range(99) %}{% set x = n // (n - 7) %}{% endfor %}",
      /10000 steps/,
    ],
    ["fields of a format", "{{ ('{0}' * 2000).format('') }}", /10000 steps/],
    ["a growing replace", grow("ns.s.replace('a', 'aa')"), /20000 characters/],
    ["a growing filter replace", grow("ns.s | replace('', 'aa')"), /20000 characters/],
    ["texts that double by ~", grow("ns.s ~ ns.s"), /20000 characters/],
    ["texts that double by +", grow("ns.s + ns.s"), /20000 characters/],
    ["texts times a number", "{{ 'ab' * 1000000000 }}", /20000 characters/],
    [
      "a text in a block",
      "{% set x = 'a' %}{% for i in range(3) %}{% set x %}{{ 'a' * 9999 }}{{ 'a' * 9999 }}{{ 'a' * 9 }}{% endset %}{% endfor %}",
      /20000 characters/,
    ],
    ["an output of many texts", "{% for i in range(100) %}{{ 'a' * 999 }}{% endfor %}", /20000 characters/],
    ["wide texts", "{{ 'a' | center(1000000000) }}", /20000 characters/],
    ["wide formats", "{{ '%1000000000d' % 1 }}", /20000 characters/],
    ["wide fields", "{{ '{:1000000000}'.format(1) }}", /20000 characters/],
    ["wide indents", "{{ 'a\nb' | indent(1000000000) }}", /20000 characters/],
    ["wide JSON", "{{ [1] | tojson(indent=1000000000) }}", /20000 characters/],
    ["wide tabs", "{{ '\\t'.expandtabs(1000000000) }}", /20000 characters/],
    ["joins", "{{ range(9999) | join('a' * 9999) }}", /20000 characters/],
    ["powers", "{{ 10 ** 1000000000 }}", /65536 bits/],
    ["squares", grow("ns.s * ns.s", "10"), /65536 bits/],
    ["a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /30 macros or loops/],
    ["a loop that calls itself", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", /30 macros or loops/],
  ])("%s", (_, text, limit) => {
    const error = refusal(text);
    expect(error).toBeInstanceOf(TemplateLimitError);
    expect(error).toMatchObject({
      exitCode: 4,
      message: expect.stringMatching(/^evil\.jinja: the chat template needs/),
    });
    expect(error.message).toMatch(limit);
  });

  it.each([
    ["lists within lists without end", grow("[ns.s]", "[1]").replace("range(100)", "range(50000)")],
    ["tuples within tuples as keys", grow("(ns.s, ns.s)", "(1,)").replace("{{ ns.s }}", "{{ {ns.s: 1} }}")],
    ["sums of many terms", `{{ 1${" + 1".repeat(50_000)} }}`],
  ])("%s", (_, text) => {
    const error = refusal(text, { ...limits, steps: 10_000_000 });
    expect(error).toBeInstanceOf(TemplateLimitError);
    expect(error.message).toMatch(/^evil\.jinja: the chat template, or what it is given, nests too deeply/);
  });

  it("amounts that are no number or below zero, whatever asks for them", () => {
    for (const amount of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => new Budget("t.jinja", limits).spend(amount)).toThrow(TemplateLimitError);
      expect(() => new Budget("t.jinja", limits).text(amount)).toThrow(TemplateLimitError);
      expect(() => new Budget("t.jinja", limits).integer(amount)).toThrow(TemplateLimitError);
    }
  });

  it("ranges as Python's sandbox refuses them", () => {
    expect(refusal("{% for i in range(1000000000) %}{% endfor %}").message).toMatch(/Range too big/);
  });

  it.each(["(", "[", "not ", "- ", "{% if 1 %}"])("%s without end in its text, by the parser", (piece) => {
    const text = piece.startsWith("{%") ? piece.repeat(10_000) : `{{ ${piece.repeat(10_000)}`;
    expect(refusal(text).message).toMatch(/within one another \(line 1\)|unexpected end of template/);
  });

  it("with the limits of every rendering, within seconds", () => {
    const text = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    expect(() => compileTemplate(text, "evil.jinja").render({})).toThrow(/10000000 steps/);
  });
});

it("a chat of a thousand long turns is far from the limits", () => {
  const turn =
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{{ m.content.split('.')[-1].lstrip('\n') }}\n{% endfor %}";
  const messages = Array.from({ length: 1000 }, (_, i) => ({
    role: i % 2 ? "assistant" : "user",
    content: "A word. ".repeat(250),
  }));
  const one = compileTemplate(turn, "t.jinja", { steps: 1_500_000, characters: 3_000_000, depth: 3 });
  expect(one.render({ messages }).length).toBeGreaterThan(2_000_000);
});
