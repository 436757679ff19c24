/** Says in one line which adapter will be used and, where it is a software one, what would be faster. */

import { platform } from "../src/engine/platform/index.ts";
import { KtoError } from "../src/errors.ts";

const faster = {
  hardware: "",
  lavapipe: " This is software Vulkan: a GPU would be far faster.",
  swiftshader:
    process.platform === "linux"
      ? " This is software Vulkan: a GPU would be far faster, lavapipe about 4 times (as root: scripts/install-lavapipe.sh)."
      : " This is software Vulkan: a GPU would be far faster.",
  software: " This is a software adapter: a GPU would be far faster.",
} as const;

try {
  const found = await platform.requestAdapter();
  console.log(`Adapter: ${found.kind} (${found.description}).${faster[found.kind]}`);
} catch (error) {
  if (!(error instanceof KtoError)) throw error;
  console.error(error.message);
  process.exitCode = error.exitCode;
}
