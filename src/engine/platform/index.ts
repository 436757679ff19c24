/** The host's platform: `browser.ts` in place of `node.ts` where a bundler builds for browsers (package.json, "imports"). */
export { platform } from "./node.ts";
export * from "./platform.ts";
