/** Lines of text files: read by pieces, and found again inside a JSON list. */
import { platform, type ReadableFile } from "../../engine/platform/index.ts";
import { DatasetError } from "../../errors.ts";

const pieceBytes = 1 << 20;
const newline = 0x0a;

/**
 * The lines of a UTF-8 file without their "\n", numbered from 1; a byte order mark is dropped.
 *
 * @throws DatasetError if the file is empty or a line is not UTF-8; FileError if it cannot be read
 */
export async function* readLines(path: string): AsyncGenerator<{ text: string; line: number }> {
  const file = await platform.openFile(path);
  try {
    if (file.size === 0) throw new DatasetError(`${path} is empty; it must hold at least two rows of feedback.`);
    const decoder = new TextDecoder("utf-8", { fatal: true });
    let line = 0;
    for await (const bytes of lineBytes(file)) {
      line++;
      let text: string;
      try {
        text = decoder.decode(bytes);
      } catch (error) {
        throw new DatasetError(`${path}:${line} is not UTF-8 text; save the file as UTF-8.`, { cause: error });
      }
      yield { text, line };
    }
  } finally {
    await file.close();
  }
}

async function* lineBytes(file: ReadableFile): AsyncGenerator<Uint8Array> {
  /** Pieces of a line whose end has not come yet. */
  let begun: Uint8Array[] = [];
  for (let offset = 0; offset < file.size; offset += pieceBytes) {
    const piece = await file.read(offset, Math.min(pieceBytes, file.size - offset));
    let start = 0;
    for (let end = piece.indexOf(newline); end >= 0; end = piece.indexOf(newline, start)) {
      const rest = piece.subarray(start, end);
      yield begun.length > 0 ? joined([...begun, rest]) : rest;
      begun = [];
      start = end + 1;
    }
    if (start < piece.length) begun.push(piece.subarray(start));
  }
  if (begun.length > 0) yield joined(begun);
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.length;
  }
  return whole;
}

/** The 1-based line on which each element of a JSON list begins; the text is known to be a valid JSON list. */
export function startLines(json: string): number[] {
  const starts: number[] = [];
  let line = 1;
  let depth = 0;
  let awaitsElement = false;
  for (const [token] of json.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|\n|[{}[\],]|[^\s"{}[\],]+/g)) {
    if (token === "\n") {
      line++;
      continue;
    }
    const closes = token === "}" || token === "]";
    if (awaitsElement && depth === 1 && !closes && token !== ",") {
      starts.push(line);
      awaitsElement = false;
    }
    if (token === "[" || token === "{") {
      depth++;
      if (depth === 1) awaitsElement = true;
    } else if (closes) depth--;
    else if (token === "," && depth === 1) awaitsElement = true;
  }
  return starts;
}
