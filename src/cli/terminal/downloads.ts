/** The line that shows a download from the hub: in place on a terminal, as a plain line every few seconds elsewhere. */
import type { DownloadProgress, HubOptions } from "../../engine/hub/resolve.ts";
import { everyFewSeconds, type Part, type Room } from "./display.ts";
import { formatDuration } from "./numbers.ts";
import type { Output } from "./output.ts";
import { type Line, span } from "./styled.ts";

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
class DownloadPart implements Part {
  readonly stays = true;
  #first: { readonly bytes: number; readonly at: number } | undefined;
  #latest: { readonly progress: DownloadProgress; readonly bytesPerSecond: number | undefined } | undefined;

  update(progress: DownloadProgress, now: number): void {
    this.#first ??= { bytes: progress.bytes, at: now };
    const { bytes, at } = this.#first;
    const bytesPerSecond = now > at ? (progress.bytes - bytes) / ((now - at) / 1000) : undefined;
    this.#latest = { progress, bytesPerSecond };
  }

  lines({ columns }: Pick<Room, "columns">): readonly Line[] {
    return this.#latest ? [[span(renderDownload(this.#latest.progress, this.#latest, columns))]] : [];
  }

  plain(): string {
    return this.#latest ? renderDownload(this.#latest.progress, this.#latest) : "";
  }

  plainDue = everyFewSeconds;
}

/** Runs `body`, showing downloads from the hub on a line of their own and its warnings as warnings. */
export async function showingDownloads<T>(
  output: Pick<Output, "display" | "warning">,
  body: (hub: HubOptions) => Promise<T>,
): Promise<T> {
  const { display } = output;
  const part = new DownloadPart();
  display?.add(part);
  try {
    return await body({
      onWarning: (sentence) => output.warning(sentence),
      onProgress: (progress) => {
        part.update(progress, display?.now() ?? 0);
        display?.changed(part);
      },
    });
  } finally {
    display?.remove(part);
  }
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
