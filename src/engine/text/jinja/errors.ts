/**
 * What stops a template: a refusal in Python's words. Callers outside this folder turn it into an error that names the
 * file. Exceeded limits are not here (limits.ts).
 */

/** A template is malformed, fails while it renders, or refuses by raise_exception. */
export class TemplateError extends Error {
  /** The class of the exception that Jinja2 or Python would raise. */
  readonly kind: string;

  constructor(kind: string, message: string) {
    super(message);
    this.name = "TemplateError";
    this.kind = kind;
  }
}

/** An operation or function got a value of a kind that it does not take. */
export function typeError(message: string): TemplateError {
  return new TemplateError("TypeError", message);
}

/** A mapping lacks a key that a format names. */
export function keyError(key: string): TemplateError {
  return new TemplateError("KeyError", `KeyError: '${key}'`);
}

/** A value is of the right kind but not usable. */
export function valueError(message: string): TemplateError {
  return new TemplateError("ValueError", message);
}

/** The text of the template breaks the grammar. */
export function syntaxError(message: string, line: number, kind = "TemplateSyntaxError"): TemplateError {
  return new TemplateError(kind, `${message} (line ${line})`);
}
