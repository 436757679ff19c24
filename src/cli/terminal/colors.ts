/** Whether a stream is shown by a terminal, and in colours. Apart from `output.ts`, which the help texts do not need. */
import pc from "picocolors";
import type { TextSink } from "./streams.ts";

/** Colours for a terminal, none for a pipe or under NO_COLOR. */
export function colorsFor(stream: TextSink): ReturnType<typeof pc.createColors> {
  return pc.createColors(wantsColors(stream));
}

export function wantsColors(stream: TextSink): boolean {
  return (isLive(stream) || Boolean(process.env.FORCE_COLOR)) && !process.env.NO_COLOR;
}

/** Whether text on the stream can be changed later. */
export function isLive(stream: TextSink): boolean {
  return stream.isTTY === true && process.env.TERM !== "dumb";
}
