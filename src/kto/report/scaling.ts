/**
 * What several ranks bring: the time of an update on any number of ranks, from one that was measured on one rank and a
 * link. Each rank has as many rows as the one that was measured, so an update of N ranks has N times as many.
 *
 * A rank sends its gradients as 2 (N - 1) / N of their bytes (each adds up one slice and gives the sums to all), and
 * receives as much at the same time. That runs while the last microbatch's backward pass goes on; what is not done by
 * then is waited for. With sharded optimizer state that goes for the half in which gradients are summed alone: weights
 * are given to all after the step, and all of that is waited for. Every collective call costs its messages: one to each
 * other rank. Ranks that update by themselves (sync_every) send as many bytes, but once in so many updates, and nothing
 * hides them.
 */
import { PIECE_BYTES } from "../../engine/ranks/communicator.ts";

/** A link between machines. */
export interface Link {
  /** Bytes that one machine sends in one direction in a second. */
  readonly bytesPerSecond: number;
  /** Seconds until a small message has come. */
  readonly latency: number;
}

/** What one rank does in an update. */
export interface RankWork {
  /** Seconds by the clock that an update takes on one rank. */
  readonly secondsPerUpdate: number;
  /** Bytes of the gradients that are exchanged: 4 for each trained parameter. */
  readonly gradientBytes: number;
  readonly microbatches: number;
  /** Ranks that share a machine's link. */
  readonly ranksPerMachine: number;
  /** Bytes that the host reads from the device, adds up and writes back in a second. */
  readonly hostBytesPerSecond: number;
  /** Whether the adapter computes on the host's own cores, so that no work of the host runs beside it. */
  readonly isSoftware: boolean;
  /** Whether weights travel after the update, and gradients are summed on one rank each; default false. */
  readonly shardsOptimizer?: boolean | undefined;
  /** Updates of each rank by itself between two outer steps; default: gradients are summed in every update. */
  readonly syncEvery?: number | undefined;
}

export interface ScaledUpdate {
  readonly ranks: number;
  readonly secondsPerUpdate: number;
  /** Seconds of it in which the device waits for other ranks. */
  readonly waiting: number;
  /** Rows per second, as a share of what as many ranks would do without each other. */
  readonly efficiency: number;
  /** Bytes that a rank sends in an update, or in the mean of those up to an outer step. */
  readonly bytesSent: number;
}

/** The backward pass as a share of a microbatch: a third, beside forward passes for rows, pairs and the reference. */
const BACKWARD_SHARE = 1 / 3;
/** Bytes a second between two ranks of a machine. */
const MEMORY_BYTES_PER_SECOND = 4e9;
/** What an outer step takes of the host, in times of a sum of gradients; measured, as the seconds of a small call. */
const OUTER_STEP = 1.75;
const SMALL_CALL = 3e-3;
/** Seconds of the processor for one message. */
const PER_MESSAGE = 5e-6;
/** Small collective calls of an update: pairs, norm, metrics. */
const SMALL_CALLS = 3;

/** The time of an update on so many ranks. */
export function scaledUpdate(ranks: number, work: RankWork, link: Link): ScaledUpdate {
  const { secondsPerUpdate: alone, gradientBytes, microbatches, hostBytesPerSecond } = work;
  if (ranks === 1) return { ranks, secondsPerUpdate: alone, waiting: 0, efficiency: 1, bytesSent: 0 };
  const sent = (2 * (ranks - 1) * gradientBytes) / ranks;
  const sharing = Math.min(ranks, work.ranksPerMachine);
  // What goes to ranks of the same machine does not cross the link.
  const crossing = (sent * (ranks - sharing)) / (ranks - 1);
  const local = sent - crossing;
  const pieces = Math.max(1, Math.ceil(gradientBytes / PIECE_BYTES));
  const calls = 2 * pieces;
  const call = link.latency + PER_MESSAGE * (ranks - 1);
  const onLink = (crossing * sharing) / link.bytesPerSecond + calls * call;
  const times = work.syncEvery === undefined ? (work.shardsOptimizer ? 1 + 1 / ranks : 1) : OUTER_STEP;
  const onHost = local / MEMORY_BYTES_PER_SECOND + (times * gradientBytes) / hostBytesPerSecond;
  const exchange = onLink + onHost;
  if (work.syncEvery !== undefined) {
    const waiting = exchange / work.syncEvery + SMALL_CALLS * (call + SMALL_CALL);
    const secondsPerUpdate = alone + waiting;
    const bytesSent = sent / work.syncEvery;
    return { ranks, secondsPerUpdate, waiting, efficiency: alone / secondsPerUpdate, bytesSent };
  }
  const beside = (alone * BACKWARD_SHARE) / microbatches;
  // Gradients are summed beside the backward pass; a sharded exchange's other half, weights for all, follows the step.
  const share = work.shardsOptimizer ? 1 / 2 : 1;
  const lastPiece = (share * exchange) / pieces; // which begins when the backward pass is over
  const hidden = Math.min(beside, share * (work.isSoftware ? onLink : exchange));
  const afterStep = (1 - share) * exchange;
  const waiting = afterStep + Math.max(share * exchange - hidden, lastPiece) + SMALL_CALLS * (call + SMALL_CALL);
  const secondsPerUpdate = alone + waiting;
  return { ranks, secondsPerUpdate, waiting, efficiency: alone / secondsPerUpdate, bytesSent: sent };
}

/** Latencies of links by their speed: Ethernet over TCP, and what is faster. Seconds. */
const LATENCIES = [
  { below: 5e8, seconds: 100e-6 },
  { below: 5e9, seconds: 30e-6 },
  { below: Number.POSITIVE_INFINITY, seconds: 5e-6 },
] as const;

/** Share of a link's speed that is left for what is sent, without headers. */
const CONTENT_SHARE = 0.9;

/** A link such as "10Gb" (bits a second), "1.25GB" (bytes), "100Mb". @returns undefined for other texts */
export function linkOf(text: string): Link | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([MG])([bB])(?:it)?(?:\/s|ps)?$/.exec(text.trim());
  if (match === null) return undefined;
  const [, number = "", prefix = "", unit = ""] = match;
  const raw = (Number(number) * (prefix === "G" ? 1e9 : 1e6)) / (unit === "b" ? 8 : 1);
  if (!(raw > 0)) return undefined;
  const latency = LATENCIES.find(({ below }) => raw < below)?.seconds ?? 5e-6;
  return { bytesPerSecond: raw * CONTENT_SHARE, latency };
}
