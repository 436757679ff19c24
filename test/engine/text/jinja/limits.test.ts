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
    ...[
      ["7 ** 5000", "n | string"],
      ["7 ** 5000", "n ~ ''"],
      ["7 ** 5000", "'%d' % n"],
      ["7 ** 5000", "'{:,}'.format(n)"],
      ["7 ** 5000", "n | tojson"],
      ["7 ** 5000", "n + n"],
      ["7 ** 5000", "{n: 1}"],
      ["7 ** 5000", "1 | round(-4000)"],
      ["'7' * 4300", "n | int"],
      ["'7' * 4300", "n | float"],
    ].map(([n, work]): [string, string, RegExp] => [
      `printing, reading and adding long integers: ${work}`,
      `{% set n = ${n} %}{% for a in range(99) %}{% set x = ${work} %}{% endfor %}`,
      /10000 steps/,
    ]),
    ...[
      "s.find(b)",
      "s.count(b)",
      "b in s",
      "s.split(b)",
      "s.partition(b)",
      "s.replace(b, '')",
      "s | replace(b, '')",
    ].map((searched): [string, string, RegExp] => [
      `searching a long text for a long one: ${searched}`,
      `{% set b = 'b' + 'a' * 900 %}{% set s = 'a' * 1900 %}{{ ${searched} }}`,
      /10000 steps/,
    ]),
    [
      "long keys",
      "{% set s = 'a' * 9000 %}{% for a in range(99) %}{% set x = {s: 1, (s, s): 2} %}{% endfor %}",
      /10000 steps/,
    ],
    [
      "tuples within tuples as keys",
      grow("(ns.s, ns.s)", "(1,)").replace("{{ ns.s }}", "{{ {ns.s: 1} }}"),
      /10000 steps/,
    ],
    ["dates", "{% for a in range(99) %}{% set x = strftime_now('%c' * 99) %}{% endfor %}", /10000 steps/],
    [
      "names of attributes",
      "{% for a in range(9) %}{% set x = [] | sort(attribute='a.' * 3000) %}{% endfor %}",
      /10000 steps/,
    ],
    ["letters to be stripped", "{% for a in range(9) %}{% set x = 'a'.strip('b' * 3000) %}{% endfor %}", /10000 steps/],
    [
      "arguments by name",
      "{% set d = dict(range(998) | map('string') | batch(2) | list) %}{% for a in range(99) %}{% set x = dict(**d) %}{% endfor %}",
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
    expect(() => compileTemplate(text, "evil.jinja").render({})).toThrow(/5000000 steps/);
  });
});

it("many short lines are joined for as many steps as they have, and no more", () => {
  const text = "{{ '\n'.join(lines) | length }}{{ lines | join('\n') | length }}";
  const lines = Array.from({ length: 20_000 }, () => "a line of some words");
  const one = compileTemplate(text, "t.jinja", { steps: 300_000, characters: 1_000_000, depth: 3 });
  expect(one.render({ lines })).toBe("419999419999");
});

it("long keys that differ are different keys, also where V8's own hashes are equal", () => {
  const text =
    "{% set s = 'a' * 20000 %}{% set d = {s ~ 'b': 1, s ~ 'c': 2, 2 ** 70: 3, 2 ** 70 + 2 ** 64: 4, (s, 'b'): 5, (s, 'c'): 6} %}{{ d[s ~ 'b'] }}{{ d[s ~ 'c'] }}{{ d[2 ** 70] }}{{ d[2 ** 70 + 2 ** 64] }}{{ d[(s, 'b')] }}{{ d[(s, 'c')] }}{{ d[s ~ 'd'] }}{{ d | length }}";
  expect(compileTemplate(text, "t.jinja").render({})).toBe("1234566");
  const marks = "{% set d = {'\0text': 1, '\0int0': 2} %}{{ d['\0text'] }}{{ d['text'] }}{{ d['\0int0'] }}";
  expect(compileTemplate(marks, "t.jinja").render({})).toBe("12");
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
