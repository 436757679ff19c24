/** The host's platform. Bundlers replace `node.ts` by `browser.ts` (package.json, "browser"). */
export { platform } from "./node.ts";
export * from "./platform.ts";
