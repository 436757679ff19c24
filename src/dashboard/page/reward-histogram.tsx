/** The rewards of an update's rows by class: thumbs up above the line, thumbs down below it. */
import { histogramOf, type PicturePoint } from "./value-picture.ts";

const SIZE = { width: 640, height: 160, left: 72, right: 16, bottom: 44 } as const;
const BINS = 32;

export function RewardHistogram({ points }: { readonly points: readonly PicturePoint[] }) {
  const { reach, up, down } = histogramOf(points, BINS);
  const { width, height, left, right, bottom } = SIZE;
  const middle = (height - bottom) / 2;
  const most = Math.max(1, ...up, ...down);
  const step = (width - left - right) / BINS;
  const tall = (count: number) => (count / most) * (middle - 4);
  const total = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count, 0);
  const label = `Rewards of ${total(up)} thumbs up, above the line, and of ${total(down)} thumbs down, below it`;
  return (
    <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
      {up.map((count, bin) => (
        <rect
          key={bin}
          class="bar up"
          x={left + bin * step + 1}
          y={middle - tall(count)}
          width={step - 2}
          height={tall(count)}
        />
      ))}
      {down.map((count, bin) => (
        <rect key={bin} class="bar down" x={left + bin * step + 1} y={middle} width={step - 2} height={tall(count)} />
      ))}
      <line class="grid" x1={left} x2={width - right} y1={middle} y2={middle} />
      <line class="reference" x1={left + (BINS / 2) * step} x2={left + (BINS / 2) * step} y1={0} y2={height - bottom} />
      {[-1, -0.5, 0, 0.5, 1].map((share) => (
        <text
          key={share}
          class="tick"
          x={left + ((share + 1) / 2) * (width - left - right)}
          y={height - bottom + 16}
          text-anchor="middle"
        >
          {Number((share * reach).toPrecision(3))}
        </text>
      ))}
      <text class="tick" x={(left + width - right) / 2} y={height - 3} text-anchor="middle">
        reward
      </text>
    </svg>
  );
}
