/** Numbers as a person reads them on a terminal. */

/** 0:07, 12:05, 1:02:03. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const twoDigits = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours > 0 ? `${hours}:${twoDigits(minutes)}:${twoDigits(rest)}` : `${minutes}:${twoDigits(rest)}`;
}

/** 0 to 9999 as they are, above in k or M with three digits. */
export function formatCount(value: number): string {
  if (value < 9999.5) return String(Math.round(value));
  return value < 999_500 ? `${(value / 1e3).toPrecision(3)}k` : `${(value / 1e6).toPrecision(3)}M`;
}

/** A metric by its name in metrics.jsonl: shares in percent, rewards with their sign, "-" for what there is none of. */
export function formatMetric(metric: string, value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return "-";
  if (metric.endsWith("accuracies") || metric.endsWith("accuracy")) return `${Math.round(value * 100)}%`;
  const digits = value.toFixed(Math.abs(value) >= 100 ? 1 : 3);
  return metric.startsWith("rewards/") && value >= 0 ? `+${digits}` : digits;
}

/** 72.9%. */
export function formatShare(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
