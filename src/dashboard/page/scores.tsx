/** The last numbers of a run in a table: reference point, win rate and margin with their intervals, speed, memory. */
import type { MetricsAnswer } from "../protocol.ts";
import type { ShownRun } from "./shown-run.ts";
import { compact } from "./value-picture.ts";

export function Scores({ shown, isNamed }: { readonly shown: ShownRun; readonly isNamed: boolean }) {
  const { metrics, run } = shown;
  const [results, machine] = [resultsOf(metrics), machineOf(metrics)];
  const memory = memoryOf(metrics);
  if (results.length + machine.length + memory.length === 0) return null;
  const title = `Now${isNamed ? `: ${run.name}` : ""}`;
  return (
    <section class="panel" aria-label={title}>
      <h2>{title}</h2>
      <dl class="scores">
        {[...results, ...machine].map(({ name, value, note }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <b>{value}</b> {note === undefined ? null : <span class="faint">{note}</span>}
            </dd>
          </div>
        ))}
      </dl>
      {memory.length > 0 ? <Memory parts={memory} /> : null}
    </section>
  );
}

interface Score {
  readonly name: string;
  readonly value: string;
  readonly note?: string;
}

function last(metrics: MetricsAnswer | undefined, name: string): number | undefined {
  return metrics?.series[name]?.values.at(-1);
}

function resultsOf(metrics: MetricsAnswer | undefined): Score[] {
  const of = (name: string) => last(metrics, name);
  const [z0, unclamped] = [of("kl"), of("kl/unclamped")];
  const [margin, validation, wins] = [of("rewards/margins"), of("eval_rewards/margins"), of("eval_win_rate")];
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
  const interval = (name: string, text: (value: number) => string) => {
    const [low, high] = [of(`${name}/low`), of(`${name}/high`)];
    return low === undefined || high === undefined
      ? "without an interval"
      : `95% interval ${text(low)} to ${text(high)}`;
  };
  const counts = ["wins", "ties", "losses"].map((name) => of(`eval_win_rate/${name}`) ?? 0);
  return [
    ...(margin === undefined ? [] : [{ name: "Margin of the training rows", value: fixed(margin) }]),
    ...(validation === undefined
      ? []
      : [
          {
            name: "Margin of the validation rows",
            value: fixed(validation),
            note: interval("eval_rewards/margins", fixed),
          },
        ]),
    ...(wins === undefined
      ? []
      : [
          {
            name: "Win rate",
            value: percent(wins),
            note: `${interval("eval_win_rate", percent)}; ${counts[0]} won, ${counts[1]} even, ${counts[2]} lost`,
          },
        ]),
    ...(z0 === undefined
      ? []
      : [
          {
            name: "Reference point z0",
            value: fixed(z0),
            ...(unclamped === undefined ? {} : { note: `before the clamp ${fixed(unclamped)}` }),
          },
        ]),
  ];
}

function machineOf(metrics: MetricsAnswer | undefined): Score[] {
  const [speed, share] = [last(metrics, "tokens_per_second"), last(metrics, "device_time_share")];
  return [
    ...(speed === undefined ? [] : [{ name: "Tokens per second", value: compact(speed) }]),
    ...(share === undefined ? [] : [{ name: "Device's share of the time", value: `${(100 * share).toFixed(0)}%` }]),
  ];
}

interface MemoryPart {
  readonly name: string;
  readonly bytes: number;
}

/** The categories that take any, the largest first. */
function memoryOf(metrics: MetricsAnswer | undefined): MemoryPart[] {
  return Object.entries(metrics?.series ?? {})
    .flatMap(([name, { values }]) => {
      const bytes = values.at(-1) ?? 0;
      return name.startsWith("bytes/") && bytes > 0 ? [{ name: name.slice(6).replaceAll("_", " "), bytes }] : [];
    })
    .sort((a, b) => b.bytes - a.bytes);
}

function Memory({ parts }: { readonly parts: readonly MemoryPart[] }) {
  const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const most = parts[0]?.bytes ?? 1;
  return (
    <>
      <h3>Device memory: {mebibytes(total)}</h3>
      <table class="memory" aria-label="Device memory">
        <tbody>
          {parts.map(({ name, bytes }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{mebibytes(bytes)}</td>
              <td class="meter">
                <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
                  <rect class="bar up" width={(100 * bytes) / most} height="8" />
                </svg>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function mebibytes(bytes: number): string {
  const size = bytes / 2 ** 20;
  return size >= 1024 ? `${(size / 1024).toFixed(2)} GiB` : `${size.toFixed(size < 10 ? 2 : 0)} MiB`;
}

function fixed(value: number): string {
  return value.toFixed(4);
}
