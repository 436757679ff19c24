/** JSON whose numbers and keys templates see as they stand there, while everything else sees what JSON.parse gives. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { exactText, parseExactJson, sourceNumber, sourceOrder } from "../../../src/engine/files/exact-json.ts";
import { createChatTemplate } from "../../../src/engine/text/chat-template.ts";

const written = (json: string) =>
  createChatTemplate("{{ value | tojson }}", {}, "t.jinja").render([], { variables: { value: parseExactJson(json) } });

describe("templates see", () => {
  it.each([
    '{"a": 1.0, "b": 1, "c": [1.0, 2, 2.5], "d": {"e": -0.0, "f": 0}}',
    '{"id": 123456789012345678901234567890, "n": -9007199254740993}',
    '{"b": 1, "10": 2, "2": 3, "a": {"1": 1.0, "0": 0}}',
    '[{"x": 1.0}, [[1.0]], "1.0", "\\"2\\": 1.0", {}]',
    '{"__proto__": 1.0, "toString": 2}',
  ])("%s as it stands there", (json) => {
    expect(written(json)).toBe(json);
  });

  it("floats in Python's form, and the last of two equal keys in the first one's place", () => {
    expect(written('{"a": 1E2, "b": 1e400, "c": 0.10, "a": 3}')).toBe('{"a": 3, "b": Infinity, "c": 0.1}');
    expect(written('{"a": 1, "b": 2, "a": 1.0}')).toBe('{"a": 1.0, "b": 2}');
  });

  it("copies of an object, less what was changed or removed", () => {
    const { b: _, ...rest } = parseExactJson('{"z": 1.0, "1": 2.0, "b": 3.0}') as Record<string, number>;
    const copy = { ...rest, z: 5, n: 7 };
    expect(sourceOrder(copy)).toEqual(["z", "1", "n"]);
    expect(sourceNumber(copy, "1", 2)).toBe("2.0");
    expect(sourceNumber(copy, "z", 5)).toBeUndefined();
  });
});

it("gives what JSON.parse gives", () => {
  fc.assert(
    fc.property(fc.json(), fc.boolean(), (json, spaced) => {
      const text = spaced ? JSON.stringify(JSON.parse(json), null, 2) : json;
      expect(JSON.parse(JSON.stringify(parseExactJson(text)))).toEqual(JSON.parse(JSON.stringify(JSON.parse(text))));
    }),
  );
  expect(() => parseExactJson('{"a": 1.0')).toThrow(SyntaxError);
});

it("tells values apart that a template writes differently, and no others", () => {
  const key = (json: string) => exactText(parseExactJson(json));
  expect(key('[{"a": 1.0}]')).not.toBe(key('[{"a": 1}]'));
  expect(key('{"b": 1, "2": 1}')).not.toBe(key('{"2": 1, "b": 1}'));
  expect(key('{"a": 1.0}')).toBe(key('{ "a" : 1.0 }'));
  expect(key('{"a": 1}')).toBe('{"a":1}');
});

it("writes values as they were read, and others as JSON.stringify does", () => {
  for (const json of [
    '{"b":1.0,"2":[12345678901234567890,-0.0,1e+5],"1":{"x":1}}',
    "[null,true,1.5]",
    '{"__proto__":1.0}',
  ]) {
    expect(exactText(parseExactJson(json))).toBe(json);
  }
  // What only looks like notes on another value is not taken for them.
  expect(exactText(parseExactJson('{"noted":[[["0","1.0"]],null],"plain":[1]}'))).not.toBe(
    exactText(parseExactJson("[1.0]")),
  );
  fc.assert(
    fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => exactText(value) === JSON.stringify(value)),
  );
  for (const value of [{ a: undefined, b: [undefined, Number.NaN] }, [new Date(0)], undefined]) {
    expect(exactText(value)).toBe(JSON.stringify(value) ?? "null");
  }
});
