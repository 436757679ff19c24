/**
 * Errors by which Node or V8 say that the system gives this process too little, as sentences. They are not bugs of this program.
 */
import { asPhrase, errorMessage, ResourceError } from "../../errors.ts";

/** V8 has no code for it, and each of its parts its own words. */
const NO_MEMORY = /out of memory|allocation failed|could not allocate|cannot allocate/i;

/** undefined for an error that says nothing of the kind. */
export function systemLimit(error: unknown): ResourceError | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  const reason = asPhrase(errorMessage(error));
  const sentence = (() => {
    if (code === "EMFILE" || code === "ENFILE") {
      return `Too many files are open (${reason}): allow more of them, such as ulimit -n 4096.`;
    }
    if (code === "ERR_MODULE_NOT_FOUND") {
      return `A part of the program cannot be loaded (${reason}): install kto-webgpu again; if it is there, allow more open files, such as ulimit -n 4096.`;
    }
    const isMemory = code === "ENOMEM" || code === "ERR_WORKER_OUT_OF_MEMORY" || code === "ERR_WORKER_INIT_FAILED";
    if (isMemory || (error instanceof RangeError && NO_MEMORY.test(reason))) {
      return `The system gives this process no more memory (${reason}): free some, or raise its limit (ulimit -v).`;
    }
    return undefined;
  })();
  return sentence === undefined ? undefined : new ResourceError(sentence, { cause: error });
}
