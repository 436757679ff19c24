/** The host's platform. Bundlers replace `node.ts` by `browser.ts` (package.json, "browser"). */
export { platform } from "./node.ts";
export type {
  AdapterKind,
  CacheFiles,
  DatabaseRow,
  FileHolder,
  FoundAdapter,
  GrowingFile,
  HeldFile,
  Platform,
  ReadableDatabase,
  ReadableFile,
  Sha256,
  Thread,
  ThreadCode,
} from "./platform.ts";
export { OutOfTimeError, ThreadLimit } from "./platform.ts";
