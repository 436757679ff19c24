/**
 * The `kto` command: picks the subcommand, reads its options, runs it, and turns whatever goes wrong into one sentence
 * on stderr and an exit code. What the commands do is in commands/.
 */
import { type Launch, launchOf } from "../engine/platform/node-launch.ts";
import { ownProcess } from "../engine/platform/node-native-stderr.ts";
import { ownManifest } from "../engine/platform/node-versions.ts";
import { ConfigError, errorMessage, type FileError, InterruptedError, KtoError } from "../errors.ts";
import { nearest } from "../kto/options/names.ts";
import { commandOf, HELP_FLAGS, helpTopic, listOfCommands, VERSION_FLAGS } from "./descriptions/list-of-commands.ts";
import { type CommandName, summaries } from "./descriptions/summaries.ts";
import type { Command } from "./options/command.ts";
import { helpText } from "./options/help-page.ts";
import { colorsFor, isLive } from "./terminal/colors.ts";
import { guardProcessStreams } from "./terminal/process-streams.ts";
import { RankProcess, streamsOf } from "./terminal/rank-process.ts";
import type { Streams } from "./terminal/streams.ts";
import { systemLimit } from "./terminal/system-limits.ts";

/** Each loads a command with all that it runs on, which takes a moment that no help text need wait for. */
export const commands: Readonly<Record<CommandName, () => Promise<{ readonly default: Command }>>> = {
  train: () => import("./commands/train.ts"),
  sft: () => import("./commands/sft.ts"),
  eval: () => import("./commands/eval.ts"),
  generate: () => import("./commands/generate.ts"),
  chat: () => import("./commands/chat.ts"),
  logps: () => import("./commands/logps.ts"),
  data: () => import("./commands/data.ts"),
  gradcheck: () => import("./commands/gradcheck.ts"),
  merge: () => import("./commands/merge.ts"),
  export: () => import("./commands/export.ts"),
  dashboard: () => import("./commands/dashboard.ts"),
  init: () => import("./commands/init.ts"),
  plan: () => import("./commands/plan.ts"),
  bench: () => import("./commands/bench.ts"),
  doctor: () => import("./commands/doctor.ts"),
  completion: () => import("./commands/completion.ts"),
};
const names = Object.keys(summaries) as CommandName[];

/** Commands whose result is a folder, of which their last line on stdout only tells. */
const MAKE_FOLDERS: readonly string[] = ["train", "sft", "merge"];

const TRAIN: readonly string[] = ["train", "sft"];
/** Commands whose work several ranks share, under mpirun. */
const SHARED_WORK: readonly string[] = ["train", "sft", "eval", "logps", "generate"];
/** Commands that a launcher's other ranks have nothing to do for. */
const FOR_ONE_RANK: readonly string[] = ["doctor", "completion", "help", ...HELP_FLAGS, ...VERSION_FLAGS];

/**
 * Runs one command line.
 *
 * @param argv the words after `kto`, i.e. process.argv.slice(2)
 * @param streams where results and everything else go; the process's own by default
 * @returns the exit code: 0, that of the KtoError, or 1 for an internal error
 */
export async function main(argv: readonly string[], streams: Streams = process): Promise<number> {
  if (streams === process) {
    guardProcessStreams((error) => lostResult(argv, error));
    if (asksForDebug(argv)) process.env.KTO_DEBUG ??= "1";
  }
  const launch = streams === process ? launchOf(process.env) : undefined;
  if (launch !== undefined) return await runAsRank(launch, argv, streams);
  try {
    return await dispatch(argv, streams);
  } catch (error) {
    return reportError(error, argv, streams);
  }
}

/** Runs a command line that a launcher of MPI gives to several processes. */
async function runAsRank(launch: Launch, argv: readonly string[], streams: Streams): Promise<number> {
  const own = streamsOf(launch, streams, asks(argv, /^(--)?log[_-]ranks(=(true|yes|on|1))?$/i));
  const [first = ""] = argv;
  const isForOne = FOR_ONE_RANK.includes(first) || argv.some((word) => HELP_FLAGS.includes(word));
  if (isForOne && launch.rank > 0) return 0;
  let ranks: RankProcess | undefined;
  try {
    if (!isForOne) {
      if (!SHARED_WORK.includes(first)) throw notShared(first);
      const heading = colorsFor(streams.stderr).red("error:");
      ranks = await RankProcess.join(launch, (sentence) => streams.stderr.write(`${heading} ${onOneLine(sentence)}\n`));
    }
    const code = await dispatch(argv, own);
    await ranks?.leave();
    return code;
  } catch (error) {
    // Without the others, each has met the same.
    if (ranks === undefined) return reportError(error, argv, own);
    if (error instanceof InterruptedError) return await leaveInterrupted(error, ranks, argv, own);
    return await ranks.fail(errorMessage(error), exitCodeOf(error), () => reportError(error, argv, streams));
  }
}

/** All ranks stop after the same update, each in good order. */
async function leaveInterrupted(
  error: InterruptedError,
  ranks: RankProcess,
  argv: readonly string[],
  own: Streams,
): Promise<number> {
  const code = reportError(error, argv, own);
  try {
    await ranks.leave();
  } catch {
    // Another rank failed while it stopped, which is told.
  }
  return code;
}

function notShared(command: string): KtoError {
  return names.some((name) => name === command)
    ? new ConfigError(`kto ${command} runs in one process: start it without mpirun.`)
    : unknownCommand(command);
}

/** Runs the command line of this process; the exit code becomes the process's. */
export async function runProcess(): Promise<void> {
  ownProcess();
  process.exitCode = await main(process.argv.slice(2));
  // A judge's module may leave something open that would keep the process alive for ever. Text that is still on its way
  // into a pipe is written first.
  process.stdout.write("", () => process.stderr.write("", () => setTimeout(() => process.exit(), 100).unref()));
}

async function dispatch(argv: readonly string[], streams: Streams): Promise<number> {
  const [first, ...rest] = argv;
  if (first === undefined) {
    streams.stderr.write(helpText(listOfCommands, streams.stderr.columns));
    return 2;
  }
  const topic = helpTopic(argv);
  if (topic !== undefined) {
    const page = topic === "kto" ? listOfCommands : (await import("./descriptions/all.ts")).helpOf(topic);
    streams.stdout.write(helpText(page, streams.stdout.columns));
    return 0;
  }
  if (VERSION_FLAGS.includes(first)) {
    streams.stdout.write(`${ownManifest().version}\n`);
    return 0;
  }
  const asked = first === "help" ? (rest[0] ?? first) : first;
  const name = commandOf(asked);
  if (name === undefined) throw asked.startsWith("-") ? optionBeforeCommand(asked) : unknownCommand(asked);
  const { default: command } = await tellingOfLoading(name, rest, streams, commands[name]);
  await command.execute(rest, streams);
  return 0;
}

/** Shows at once that a command was understood, where a terminal can take that back: its modules take a moment to load. */
async function tellingOfLoading<T>(
  name: CommandName,
  words: readonly string[],
  { stderr }: Streams,
  load: () => Promise<T>,
): Promise<T> {
  const isWanted = TRAIN.includes(name) && !words.some((word) => /^(--)?(quiet|log_level)\b/i.test(word));
  if (!isWanted || !isLive(stderr)) return await load();
  // A line that is broken in two could not be taken back.
  stderr.write(`loading kto ${name} ...`.slice(0, (stderr.columns ?? 80) - 1));
  try {
    return await load();
  } finally {
    stderr.write("\r\x1b[K");
  }
}

function optionBeforeCommand(word: string): ConfigError {
  return new ConfigError(`a command comes first, then its options: kto <command> ${word}; kto --help lists them.`);
}

function unknownCommand(name: string): ConfigError {
  const near = nearest(name, names);
  const hint = near === undefined ? `commands are ${names.join(", ")}.` : `did you mean "${near}"?`;
  return new ConfigError(`unknown command "${name}": ${hint}`);
}

function reportError(thrown: unknown, argv: readonly string[], streams: Streams): number {
  const error = systemLimit(thrown) ?? thrown;
  const expected = error instanceof KtoError;
  const problems = error instanceof ConfigError ? error.problems : [];
  const several = [`${problems.length} things must be changed:`, ...problems.map((one) => `  ${onOneLine(one)}`)];
  const told = problems.length > 0 ? several.join("\n") : expected ? onOneLine(error.message) : undefined;
  const sentence = told ?? `internal error (please report): ${errorMessage(error)}`;
  const colors = colorsFor(streams.stderr);
  const heading = error instanceof InterruptedError ? colors.yellow("stopped:") : colors.red("error:");
  streams.stderr.write(`${heading} ${sentence}\n`);
  if (asksForDebug(argv) && error instanceof Error) streams.stderr.write(`${stackWithCauses(error)}\n`);
  return exitCodeOf(error);
}

function exitCodeOf(error: unknown): number {
  return error instanceof KtoError ? error.exitCode : 1;
}

/** By the words themselves, since the options may be what could not be read. */
function asksForDebug(argv: readonly string[]): boolean {
  return asks(argv, /^(--)?debug(=(true|yes|on|1))?$/i);
}

function asks(argv: readonly string[], option: RegExp): boolean {
  return argv.some((word) => option.test(word));
}

/** A message may quote a damaged file, whose characters could break the line or command the terminal. */
function onOneLine(message: string): string {
  const escaped = (character: string) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  return message.replace(/\s*[\r\n]\s*/g, " ").replace(/\p{Cc}/gu, escaped);
}

function stackWithCauses(error: Error): string {
  const own = error.stack ?? error.message;
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackWithCauses(error.cause)}` : own;
}

/**
 * `kto logps --json | head` closes the pipe early, which is not an error. A full disk is one, unless the result is
 * a folder, of which stdout only tells.
 */
function lostResult(argv: readonly string[], error: FileError | undefined): void {
  if (MAKE_FOLDERS.includes(argv[0] ?? "")) {
    if (error) process.stderr.write(`${colorsFor(process.stderr).yellow("warning:")} ${error.message}\n`);
    return;
  }
  process.exit(error ? reportError(error, argv, process) : process.exitCode);
}
