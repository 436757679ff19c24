/** The line that shows a download from the hub: in place on a terminal, as a plain line every few seconds elsewhere. */
import type { DownloadProgress, HubOptions } from "../../engine/hub/resolve.ts";
import type { LiveLine, Output, TextSink } from "./output.ts";
import { formatDuration } from "./progress.ts";

/** Least time between two drawings on a terminal. */
const REDRAW_MS = 100;
const PLAIN_MS = 5000;

export interface DownloadLineOptions {
  /** Milliseconds, monotone; for tests. */
  readonly now?: () => number;
}

/** File, share of all bytes, speed and time left, as far as they fit. The speed counts what came in this run alone. */
export function renderDownload(
  { file, bytes, totalBytes }: DownloadProgress,
  timing: { readonly bytesPerSecond?: number | undefined } = {},
  width = Number.POSITIVE_INFINITY,
): string {
  const { bytesPerSecond = 0 } = timing;
  const amount = `${mebibytes(bytes)} of ${mebibytes(totalBytes)} MiB`;
  const speed = bytesPerSecond > 0 ? `  ${mebibytes(bytesPerSecond)} MiB/s` : "";
  const left = bytesPerSecond > 0 ? `  ${formatDuration((totalBytes - bytes) / bytesPerSecond)} left` : "";
  const candidates = [
    `downloading ${file}  ${amount}${speed}${left}`,
    `downloading ${amount}${speed}${left}`,
    `downloading ${amount}`,
  ];
  return candidates.find((line) => line.length <= width) ?? amount.slice(0, width);
}

export class DownloadLine implements LiveLine {
  readonly #stream: TextSink;
  readonly #now: () => number;
  #latest: DownloadProgress | undefined;
  #first: { bytes: number; at: number } | undefined;
  #writtenAt = Number.NEGATIVE_INFINITY;
  #written: DownloadProgress | undefined;

  constructor(stream: TextSink, { now = () => performance.now() }: DownloadLineOptions = {}) {
    this.#stream = stream;
    this.#now = now;
  }

  update(progress: DownloadProgress): void {
    const now = this.#now();
    this.#first ??= { bytes: progress.bytes, at: now };
    this.#latest = progress;
    const intervalMs = this.#stream.isTTY === true ? REDRAW_MS : PLAIN_MS;
    if (now - this.#writtenAt >= intervalMs) this.#draw(progress, now);
  }

  /** Leaves the last state on the screen and starts a new line. */
  finish(): void {
    if (this.#latest !== undefined && this.#written !== this.#latest) this.#draw(this.#latest, this.#now());
    if (this.#stream.isTTY === true && this.#written !== undefined) this.#stream.write("\n");
    this.#latest = undefined;
  }

  clear(): void {
    if (this.#stream.isTTY === true && this.#latest !== undefined) this.#stream.write("\r\x1b[K");
  }

  redraw(): void {
    if (this.#stream.isTTY === true && this.#latest !== undefined) this.#draw(this.#latest, this.#now());
  }

  #draw(progress: DownloadProgress, now: number): void {
    this.#writtenAt = now;
    this.#written = progress;
    const { bytes, at } = this.#first ?? { bytes: 0, at: now };
    const bytesPerSecond = now > at ? (progress.bytes - bytes) / ((now - at) / 1000) : undefined;
    if (this.#stream.isTTY === true) {
      // One column stays free: a full line would wrap.
      const width = (this.#stream.columns ?? 80) - 1;
      this.#stream.write(`\r${renderDownload(progress, { bytesPerSecond }, width)}\x1b[K`);
    } else {
      this.#stream.write(`${renderDownload(progress, { bytesPerSecond })}\n`);
    }
  }
}

/** Runs `body`, showing downloads from the hub on a live line and its warnings as warnings. */
export async function showingDownloads<T>(output: Output, body: (hub: HubOptions) => Promise<T>): Promise<T> {
  const line = output.tells("info") ? new DownloadLine(output.streams.stderr) : undefined;
  output.setLive(line);
  try {
    return await body({
      onWarning: (sentence) => output.warning(sentence),
      onProgress: (progress) => line?.update(progress),
    });
  } finally {
    line?.finish();
    output.setLive(undefined);
  }
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
