/**
 * This process as one rank of several: who writes to the terminal, what becomes of signals, and how all ranks end. A
 * process that runs alone has none of this.
 */
import type { Launch } from "../../engine/platform/node-launch.ts";
import { RankLink } from "../../engine/platform/node-mpi.ts";
import { type RankFault, speakerOf } from "../../engine/platform/rank-watch.ts";
import { SIGNAL_CODES } from "../../errors.ts";
import { type EndSignal, screenSignals } from "./signals.ts";
import type { Streams, TextSink } from "./streams.ts";

/** The time that a rank may be silent before options are read. */
const FIRST_TIMEOUT_MS = 60_000;
/** How long rank 0 waits with another rank's error, in case it meets the same itself. */
const SAME_ERROR_MS = 300;

let current: RankProcess | undefined;

/** This process among its ranks; undefined where it runs alone. */
export function rankProcess(): RankProcess | undefined {
  return current;
}

export class RankProcess {
  readonly link: RankLink;
  readonly #report: (sentence: string) => void;
  #isTold = false;
  #advice: () => string | undefined = () => undefined;

  private constructor(launch: Launch, link: RankLink, report: (sentence: string) => void) {
    this.launch = launch;
    this.link = link;
    this.#report = report;
  }

  readonly launch: Launch;

  /**
   * Loads MPI and meets the other ranks.
   *
   * @param report writes the sentence of an error to the terminal
   * @throws ResourceError where koffi or MPI are missing
   */
  static async join(launch: Launch, report: (sentence: string) => void): Promise<RankProcess> {
    let joined: RankProcess | undefined;
    const link = await RankLink.join(launch, FIRST_TIMEOUT_MS, {
      onFault: (fault, speaks) => {
        if (speaks && joined !== undefined) joined.#tellSoon(fault);
      },
    });
    joined = new RankProcess(launch, link, report);
    current = joined;
    joined.#watchSignals();
    return joined;
  }

  /** What to do after a fault, for the end of its sentence: where the last checkpoint is. */
  adviseBy(advice: () => string | undefined): void {
    this.#advice = advice;
  }

  /**
   * The end of a command that did its work, or was stopped in good order on all ranks.
   *
   * @throws RankError where another rank fails meanwhile
   */
  async leave(): Promise<void> {
    await this.link.leave();
    current = undefined;
    screenSignals(undefined);
  }

  /**
   * The end of a command that failed here. Never returns: all ranks end with the exit code of the first fault.
   *
   * @param tell writes the error to the terminal
   */
  async fail(sentence: string, exitCode: number, tell: () => void): Promise<never> {
    const { fault: known, rank } = this.link;
    if (known === undefined) this.link.fail(sentence, exitCode);
    const fault = known ?? { ranks: [rank], gone: false, sentence, exitCode };
    // Where several ranks meet the same error, the one who speaks tells its own, without a rank's name.
    const isOwn = known === undefined || known.ranks.includes(rank) || known.sentence !== sentence;
    if (speakerOf(fault) === rank && isOwn && !fault.gone && !this.#isTold) {
      this.#isTold = true;
      tell();
      this.link.spoke();
    }
    await this.link.spoken();
    return await this.link.abort(fault.exitCode);
  }

  #tellSoon(fault: RankFault): void {
    const isOthers = !fault.gone && !fault.ranks.includes(this.link.rank);
    if (isOthers) setTimeout(() => this.#tell(fault), SAME_ERROR_MS);
    else if (fault.gone || speakerOf(fault) !== this.link.rank) this.#tell(fault);
    // Else it is this rank's own error, which `fail` tells.
  }

  #tell(fault: RankFault): void {
    if (this.#isTold) return;
    this.#isTold = true;
    const own = fault.gone ? "" : `${fault.ranks.map((rank) => this.link.nameOf(rank)).join(", ")}: `;
    const advice = this.#advice();
    this.#report(`${own}${fault.sentence}${advice === undefined ? "" : ` ${advice}`}`);
    this.link.spoke();
  }

  /** A launcher sends SIGTERM to all ranks when one of them dies, before the heartbeat could tell. */
  #watchSignals(): void {
    const explained = async (): Promise<boolean> => (await this.link.examine()) !== undefined;
    screenSignals(explained);
    for (const signal of Object.keys(SIGNAL_CODES) as EndSignal[]) {
      process.on(signal, () => {
        void explained().then((isFault) => {
          const isAlone = process.listenerCount(signal) === 1; // else a run ends itself, in good order
          if (!isFault && isAlone) this.link.fail(`${signal}: stopped.`, SIGNAL_CODES[signal]);
        });
      });
    }
  }
}

/**
 * Where a rank's text goes: rank 0 has the terminal. Of the others nothing is shown, or all of it on stderr with the
 * rank's number before each line.
 */
export function streamsOf(launch: Pick<Launch, "rank">, streams: Streams, shown: boolean): Streams {
  // mpirun gives its ranks a terminal of their own, whatever its own output is: nothing that moves, no colours.
  if (launch.rank === 0) return { stdout: plain(streams.stdout), stderr: plain(streams.stderr) };
  const sink = shown ? prefixed(streams.stderr, `[${launch.rank}] `) : SILENT;
  return { stdout: sink, stderr: sink };
}

function plain(sink: TextSink): TextSink {
  return { write: (text) => sink.write(text) };
}

const SILENT: TextSink = { write: () => true };

function prefixed(sink: TextSink, prefix: string): TextSink {
  let isLineStart = true;
  return {
    write: (text: string) => {
      const lines = text.split("\n");
      const shown = lines.map((line, i) => {
        const starts = i > 0 || isLineStart;
        return starts && !(i === lines.length - 1 && line === "") ? prefix + line : line;
      });
      isLineStart = text.endsWith("\n");
      return sink.write(shown.join("\n"));
    },
  };
}
