/**
 * Reads a Modelfile by the rules of Ollama's own reader (parser/parser.go, read on 2026-11-30 at 00dc3af): commands and
 * values end where a line does or, in quotes, where the quotes end; of other than printed characters only spaces and line
 * breaks within quotes are kept.
 */

export interface ModelfileCommand {
  readonly name: string;
  readonly value: string;
}

const COMMANDS = ["from", "license", "template", "system", "adapter", "parameter", "message"];
const isPrinted = (character: string) => /[\p{L}\p{M}\p{N}\p{P}\p{S} ]/u.test(character);

/** @throws Error where Ollama refuses the file */
export function readModelfile(text: string): ModelfileCommand[] {
  const commands: ModelfileCommand[] = [];
  const rest = [...text];
  const word = (allowed: RegExp): string => {
    let found = "";
    while (rest[0] !== undefined && allowed.test(rest[0])) found += rest.shift();
    if (rest[0] !== " " && rest[0] !== "\t") throw new Error(`"${found}" is followed by ${JSON.stringify(rest[0])}`);
    rest.shift();
    return found;
  };
  while (rest.length > 0) {
    if (rest[0] === "#") while (rest.length > 0 && !/[\r\n]/.test(rest[0] ?? "")) rest.shift();
    else if (/\s/.test(rest[0] ?? "")) rest.shift();
    else {
      const command = word(/[a-z]/i).toLowerCase();
      if (!COMMANDS.includes(command)) throw new Error(`there is no command ${command}`);
      const name = command === "parameter" ? word(/\w/) : command;
      commands.push({ name, value: value(rest) });
    }
  }
  if (!commands.some(({ name }) => name === "from")) throw new Error("there is no FROM line");
  return commands;
}

/** Takes a value from the characters that are left. */
function value(rest: string[]): string {
  let held = "";
  while (rest.length > 0) {
    const character = rest.shift() ?? "";
    const whole = unquoted(held.trim());
    if (/[\r\n]/.test(character) && whole !== undefined) return whole;
    if (/[ \t\r\n]/.test(character) || isPrinted(character)) held += character;
  }
  const whole = unquoted(held.trim());
  if (whole === undefined) throw new Error("a quotation does not end");
  return whole;
}

/** undefined for a quotation that has not ended. */
function unquoted(text: string): string | undefined {
  for (const quote of ['"""', '"']) {
    if (!text.startsWith(quote)) continue;
    return text.length >= 2 * quote.length && text.endsWith(quote)
      ? text.slice(quote.length, -quote.length)
      : undefined;
  }
  return text;
}
