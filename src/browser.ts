/**
 * The public surface for web pages: all of `index.ts`, which bundlers build for browsers with `browser.ts` of the
 * platform (package.json, "imports"), and what only a page needs, files in memory.
 */

export { filesInMemory, type GivenFile, memoryFolder } from "./engine/platform/browser-memory.ts";
export * from "./index.ts";
