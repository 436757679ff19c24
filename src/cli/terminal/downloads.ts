/** The line that shows a download from the hub: in place on a terminal, as a plain line every few seconds elsewhere. */
import type { DownloadProgress, HubOptions } from "../../engine/hub/resolve.ts";
import type { Output } from "./output.ts";
import { formatDuration } from "./progress.ts";
import { RedrawnLine } from "./redrawn-line.ts";

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

/** A download with its speed, measured from its first news on. */
type Timed = DownloadProgress & { readonly bytesPerSecond: number | undefined };

export class DownloadLine extends RedrawnLine<Timed> {
  #first: { bytes: number; at: number } | undefined;

  update(progress: DownloadProgress): void {
    const now = this.now();
    this.#first ??= { bytes: progress.bytes, at: now };
    const { bytes, at } = this.#first;
    this.show({ ...progress, bytesPerSecond: now > at ? (progress.bytes - bytes) / ((now - at) / 1000) : undefined });
  }

  protected override text(state: Timed, width?: number): string {
    return renderDownload(state, state, width);
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
