/**
 * Text files that this program writes beside its results and people go on to change: the last line is a comment with
 * the digest of what stands before it, so that a file that was changed is known and kept.
 */
import { platform } from "../platform/index.ts";

/** How a format writes a comment on one line. */
export type CommentStyle = readonly [open: string, close: string];

const WORDS = "written by kto; replaced while its sha256 is";

/**
 * Writes a text, unless the file is there and is not one that this program wrote and nobody changed.
 *
 * @returns whether it was written
 * @throws FileError
 */
export async function writeOwnText(path: string, text: string, [open, close]: CommentStyle): Promise<boolean> {
  if ((await platform.exists(path)) !== undefined && !(await isUnchanged(path, [open, close]))) return false;
  const body = text.endsWith("\n") ? text : `${text}\n`;
  await platform.writeFileAtomic(path, `${body}${open}${WORDS} ${digestOf(body)}${close}\n`);
  return true;
}

async function isUnchanged(path: string, [open, close]: CommentStyle): Promise<boolean> {
  const text = await platform.readText(path);
  const at = text.lastIndexOf(`${open}${WORDS} `);
  return at >= 0 && text.slice(at) === `${open}${WORDS} ${digestOf(text.slice(0, at))}${close}\n`;
}

function digestOf(text: string): string {
  const hash = platform.sha256();
  hash.update(new TextEncoder().encode(text));
  return hash.digest();
}
