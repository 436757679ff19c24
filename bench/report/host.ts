/** How the report starts programs, which differs between a checkout and the bundle, and what it knows of itself. */

export interface Host {
  /** The folder with test/fixtures and package.json. */
  readonly root: string;
  /** How a user starts the report, and where its files go unless told otherwise. */
  readonly command: string;
  readonly out: string;
  /** Lines of the usage for options that only this host has. */
  readonly ownOptions: readonly string[];
  readonly commit: string | null;
  readonly versions: Readonly<Record<string, string | null>>;
  /** Where to send the report; null where package.json names no issue tracker. */
  readonly issues: string | null;
  /** Words after `node` that start the report again, to run one part. */
  readonly self: readonly string[];
  /** Words after `node` that start the `kto` command. */
  readonly kto: readonly string[];
  /** Names of the kernel test files, e.g. "matmul". */
  readonly kernelTests: readonly string[];
  /** Words after `node` that run one file of tests and write vitest's JSON report to `output`. */
  readonly kernelTestCommand: (name: string, output: string) => readonly string[];
}
