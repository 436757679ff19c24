/**
 * The text of a template to tokens, as Jinja2's lexer cuts it with trim_blocks and lstrip_blocks on: the newline after
 * a block goes, and so does the white space before one that begins its line; "-" takes all white space, "+" keeps it.
 */
import { syntaxError } from "./errors.ts";
import { isSpace, spaces, strip } from "./strings.ts";

export type TokenKind =
  | "data"
  | "variable_begin"
  | "variable_end"
  | "block_begin"
  | "block_end"
  | "name"
  | "string"
  | "integer"
  | "float"
  | "operator"
  | "eof";

export interface Token {
  readonly kind: TokenKind;
  /** The text of a string without quotes and escapes; the digits of a number. */
  readonly value: string;
  readonly line: number;
}

/** A pattern in which \s stands for Python's white space. */
function pattern(source: RegExp): RegExp {
  return new RegExp(source.source.replaceAll("\\s", `[${spaces}]`), source.flags);
}

const opening = pattern(/\{%([-+]?)\s*raw\s*(?:-%\}\s*|%\})|(\{\{|\{%|\{#)([-+]?)/g);
const rawEnd = pattern(/\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\}\n?)/g);
const commentEnd = pattern(/(?:\+#\}|-#\}\s*|#\}\n?)/g);
const blockEnd = pattern(/(?:\+%\}|-%\}\s*|%\}\n?)/y);
const variableEnd = pattern(/(?:-\}\}\s*|\}\})/y);
const space = pattern(/\s+/y);
const float = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
/** What str.isidentifier() allows goes beyond letters and digits: "·" within a name, "℘" at its beginning. */
const name = /[\p{L}\p{N}_\p{XID_Continue}]+/uy;
const identifier = /^[\p{XID_Start}_]\p{XID_Continue}*$/u;
const string = /'[^'\\]*(?:\\[\s\S][^'\\]*)*'|"[^"\\]*(?:\\[\s\S][^"\\]*)*"/y;
const operator = /\*\*|\/\/|==|!=|>=|<=|[-+*/%~[\](){}><=.:|,;]/y;

const closers: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };

/** @throws TemplateError naming the line of what is no token */
export function tokenize(text: string): Token[] {
  return new Lexer(text).run();
}

class Lexer {
  readonly #text: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  #lineAt = 0;
  /** What was read last ended with a newline, or nothing was. */
  #lineStarts = true;

  constructor(text: string) {
    const lines = text.replace(/\r\n?/g, "\n");
    this.#text = lines.endsWith("\n") ? lines.slice(0, -1) : lines;
  }

  run(): Token[] {
    for (;;) {
      opening.lastIndex = this.#at;
      const found = opening.exec(this.#text);
      if (found === null) break;
      const [whole, rawSign, begin, sign = ""] = found;
      this.#data(this.#text.slice(this.#at, found.index), rawSign ?? sign, begin === "{{");
      this.#moveTo(found.index + whole.length);
      if (begin === undefined) this.#raw();
      else if (begin === "{#") this.#comment();
      else this.#code(begin === "{{");
    }
    this.#push("data", this.#text.slice(this.#at));
    this.#moveTo(this.#text.length);
    this.#push("eof", "");
    return this.#tokens;
  }

  #lineNow(): number {
    for (; this.#lineAt < this.#at; this.#lineAt++) if (this.#text[this.#lineAt] === "\n") this.#line++;
    return this.#line;
  }

  #push(kind: TokenKind, value: string): void {
    if (kind !== "data" || value !== "") this.#tokens.push({ kind, value, line: this.#lineNow() });
  }

  #moveTo(at: number): void {
    this.#at = at;
    this.#lineStarts = this.#text[at - 1] === "\n";
  }

  /** Text before a tag, less the white space that the tag takes. */
  #data(text: string, sign: string, isVariable: boolean): void {
    let kept = text;
    if (sign === "-") kept = strip(text, "right");
    else if (sign !== "+" && !isVariable) {
      const lineStart = text.lastIndexOf("\n") + 1;
      if ((lineStart > 0 || this.#lineStarts) && isSpace(text.slice(lineStart))) kept = text.slice(0, lineStart);
    }
    this.#push("data", kept);
  }

  #raw(): void {
    rawEnd.lastIndex = this.#at;
    const end = rawEnd.exec(this.#text);
    if (end === null) throw this.#fails("Missing end of raw directive");
    this.#data(this.#text.slice(this.#at, end.index), end[1] ?? "", false);
    this.#moveTo(end.index + end[0].length);
  }

  #comment(): void {
    commentEnd.lastIndex = this.#at;
    const end = commentEnd.exec(this.#text);
    if (end === null) throw this.#fails("Missing end of comment tag");
    this.#moveTo(end.index + end[0].length);
  }

  /** Matches at the position; undefined if there is no such thing there. */
  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    return pattern.exec(this.#text)?.[0];
  }

  #code(isVariable: boolean): void {
    this.#push(isVariable ? "variable_begin" : "block_begin", "");
    const open: string[] = [];
    for (;;) {
      const end = open.length === 0 ? this.#take(isVariable ? variableEnd : blockEnd) : undefined;
      if (end !== undefined) {
        this.#push(isVariable ? "variable_end" : "block_end", "");
        this.#moveTo(this.#at + end.length);
        return;
      }
      if (this.#at >= this.#text.length) throw this.#fails("unexpected end of template");
      this.#token(open);
    }
  }

  #token(open: string[]): void {
    let length = this.#take(space)?.length;
    if (length === undefined) {
      const kinds = [
        ["float", float],
        ["integer", integer],
        ["name", name],
        ["string", string],
        ["operator", operator],
      ] as const;
      for (const [kind, pattern] of kinds) {
        const found = this.#take(pattern);
        if (found === undefined) continue;
        if (kind === "name" && !identifier.test(found)) throw this.#fails("Invalid character in identifier");
        if (kind === "operator") this.#balance(found, open);
        this.#push(kind, kind === "string" ? this.#unescaped(found.slice(1, -1)) : found);
        length = found.length;
        break;
      }
    }
    if (length === undefined) throw this.#fails(`unexpected char '${this.#text[this.#at]}'`);
    this.#moveTo(this.#at + length);
  }

  #balance(found: string, open: string[]): void {
    const closer = closers[found];
    if (closer !== undefined) open.push(closer);
    else if (found === ")" || found === "]" || found === "}") {
      const expected = open.pop();
      if (expected === undefined) throw this.#fails(`unexpected '${found}'`);
      if (expected !== found) throw this.#fails(`unexpected '${found}', expected '${expected}'`);
    }
  }

  #unescaped(body: string): string {
    const escapeSequence = /\\(?:\n|([0-7]{1,3})|x([\da-fA-F]{0,2})|u([\da-fA-F]{0,4})|U([\da-fA-F]{0,8})|([\s\S]))/g;
    return body.replace(
      escapeSequence,
      (whole, octal?: string, x?: string, u?: string, long?: string, other?: string) => {
        if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
        for (const [digits, length] of [
          [x, 2],
          [u, 4],
          [long, 8],
        ] as const) {
          if (digits === undefined) continue;
          const code = Number.parseInt(digits, 16);
          if (digits.length !== length || code > 0x10ffff) throw this.#fails(`truncated escape ${whole} in a string`);
          return String.fromCodePoint(code);
        }
        if (other === undefined) return "";
        if (other === "N") throw this.#fails("character names (\\N{...}) are not supported in chat templates here");
        return simpleEscapes[other] ?? whole;
      },
    );
  }

  #fails(message: string) {
    return syntaxError(message, this.#lineNow());
  }
}

/** What is not here stays as it is, backslash and all. */
const simpleEscapes: Readonly<Record<string, string>> = {
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};
