/** Says in one line which adapter will be used and, where it is a software one, what would be faster. */

import { fasterThan } from "../src/cli/commands/doctor.ts";
import { platform } from "../src/engine/platform/index.ts";
import { KtoError } from "../src/errors.ts";

try {
  const { kind, description } = await platform.requestAdapter();
  const faster = fasterThan(kind);
  console.log(`Adapter: ${kind} (${description})${faster === undefined ? "." : `; ${faster}`}`);
} catch (error) {
  if (!(error instanceof KtoError)) throw error;
  console.error(error.message);
  process.exitCode = error.exitCode;
}
