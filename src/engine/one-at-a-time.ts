/** Work that shares memory on the device and so must not overlap: a call waits until those before it have ended. */
export class OneAtATime {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` after all that was given before, whether that succeeded or failed. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work);
    this.#last = mine.catch(() => undefined);
    return await mine;
  }
}
