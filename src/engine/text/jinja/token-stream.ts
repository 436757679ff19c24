/** A template's tokens, read one after another by the parsers. */
import { syntaxError, TemplateError } from "./errors.ts";
import { type Token, type TokenKind, tokenize } from "./lexer.ts";

/** Beyond this, parentheses and blocks within one another would end the machine's stack; Python stops near 100. */
const deepest = 90;

export class TokenStream {
  readonly #tokens: readonly Token[];
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#tokens = tokenize(text);
  }

  get current(): Token {
    return this.look(0);
  }

  look(ahead: number): Token {
    const token = this.#tokens[Math.min(this.#at + ahead, this.#tokens.length - 1)];
    if (token === undefined) throw new TemplateError("TemplateSyntaxError", "the template has no tokens");
    return token;
  }

  next(): Token {
    const token = this.current;
    this.#at++;
    return token;
  }

  is(kind: TokenKind, value?: string): boolean {
    return this.current.kind === kind && (value === undefined || this.current.value === value);
  }

  isName(...names: readonly string[]): boolean {
    return this.current.kind === "name" && names.includes(this.current.value);
  }

  isOperator(...operators: readonly string[]): boolean {
    return this.current.kind === "operator" && operators.includes(this.current.value);
  }

  /** Goes past the current token if it is this one. */
  skip(kind: TokenKind, value?: string): boolean {
    if (!this.is(kind, value)) return false;
    this.#at++;
    return true;
  }

  expect(kind: TokenKind, value?: string): Token {
    if (this.is(kind, value)) return this.next();
    throw this.fails(
      `expected ${value === undefined ? kind.replace("_", " ") : `'${value}'`}, got ${this.described()}`,
    );
  }

  described(): string {
    const { kind, value } = this.current;
    if (kind === "eof") return "the end of the template";
    return value === "" ? kind.replace("_", " ") : `'${value}'`;
  }

  /** @param kind "SyntaxError" for what Jinja2 accepts and Python refuses in the code that Jinja2 makes of it */
  fails(message: string, kind?: string): TemplateError {
    return syntaxError(message, this.current.line, kind);
  }

  /** Parses what lies within something of its own kind. */
  nested<T>(parse: () => T): T {
    if (this.#depth >= deepest) throw this.fails(`more than ${deepest} parentheses or blocks within one another`);
    this.#depth++;
    try {
      return parse();
    } finally {
      this.#depth--;
    }
  }
}
