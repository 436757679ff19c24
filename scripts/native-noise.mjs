/**
 * Lines that drivers, the Vulkan loader and Dawn write straight to stderr while they look for adapters: limits
 * "artificially reduced", drivers that do not fit this machine. None of it concerns whoever reads the output of a
 * script: the adapter that is chosen is told, and a failure is an error of its own. `KTO_DEBUG=1` shows them.
 */

/** @returns {(line: string) => boolean} whether the next line of stderr is such a line, or continues one */
export function nativeNoise() {
  if (process.env.KTO_DEBUG !== undefined) return () => false;
  let before = false;
  return (line) => {
    before = /^Warning: |^error: XDG_RUNTIME_DIR/.test(line) || (before && /^ +(at|-) |^$/.test(line));
    return before;
  };
}
