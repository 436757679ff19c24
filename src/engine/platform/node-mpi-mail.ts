/** Small messages between ranks on a communicator of their own, which no collective call can hold up. */
import type { MpiCommunicator, MpiLibrary, MpiRequest } from "./node-mpi-library.ts";

/** What a message is. Each kind has its length. */
export const MAIL = { beat: 1, fault: 2, spoken: 3 } as const;

type Kind = keyof typeof MAIL;

/**
 * Bytes of a message. A fault is JSON with zeros behind it. All stay below the limit (4096 bytes over shared memory) up
 * to which Open MPI sends a message at once: taking it then waits for nobody, who may have died meanwhile.
 */
export const LENGTHS: Readonly<Record<Kind, number>> = { beat: 8, fault: 3584, spoken: 8 };
/** A rank that takes no beats is not sent more than these. */
const MOST_BEATS = 32;

export interface Mail {
  readonly from: number;
  readonly kind: Kind;
  readonly bytes: Uint8Array;
}

export class Mailbox {
  readonly #mpi: MpiLibrary;
  readonly #communicator: MpiCommunicator;
  /** The messages on their way, with their bytes, which must live as long. */
  #sending: { readonly to: number; readonly request: MpiRequest; readonly bytes: Uint8Array }[] = [];

  constructor(mpi: MpiLibrary) {
    this.#mpi = mpi;
    this.#communicator = mpi.communicator();
  }

  send(to: number, kind: Kind, content: Uint8Array): void {
    if (kind === "beat" && this.#sending.filter((one) => one.to === to).length >= MOST_BEATS) return;
    const bytes = new Uint8Array(LENGTHS[kind]);
    bytes.set(content.subarray(0, bytes.length));
    const place = { address: this.#mpi.addressOf(bytes), bytes: bytes.length };
    this.#sending.push({ to, request: this.#communicator.send(place, to, MAIL[kind]), bytes });
  }

  /** Whether something is still on its way. */
  get isSending(): boolean {
    return this.#sending.length > 0;
  }

  /** The messages that have come. */
  take(): Mail[] {
    this.#sending = this.#sending.filter(({ request }) => !this.#mpi.isDone(request));
    const taken: Mail[] = [];
    for (let next = this.#communicator.probe(); next !== undefined; next = this.#communicator.probe()) {
      const { tag, from } = next;
      const kind = (Object.keys(MAIL) as Kind[]).find((one) => MAIL[one] === tag);
      if (kind === undefined) throw new Error(`a message of the unknown kind ${tag} came from rank ${from}`);
      const bytes = new Uint8Array(LENGTHS[kind]);
      this.#communicator.receive({ address: this.#mpi.addressOf(bytes), bytes: bytes.length }, next);
      taken.push({ from, kind, bytes });
    }
    return taken;
  }
}
