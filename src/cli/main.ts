/**
 * The `kto` command: picks the subcommand, reads its options, runs it, and turns whatever goes wrong into one sentence
 * on stderr and an exit code. It prints no results and knows nothing of what the commands do.
 */
import { CommanderError, Option, Command as Program } from "commander";
import { ConfigError, errorMessage, InterruptedError, KtoError } from "../errors.ts";
import { nearest } from "../kto/options/names.ts";
import { benchCommand } from "./commands/bench.ts";
import { chatCommand } from "./commands/chat.ts";
import { dataCommand } from "./commands/data.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { evalCommand } from "./commands/eval.ts";
import { generateCommand } from "./commands/generate.ts";
import { gradcheckCommand } from "./commands/gradcheck.ts";
import { logpsCommand } from "./commands/logps.ts";
import { mergeCommand } from "./commands/merge.ts";
import { sftCommand } from "./commands/sft.ts";
import { trainCommand } from "./commands/train.ts";
import type { Command } from "./options/command.ts";
import { helpOptions, readOptions } from "./options/command-line.ts";
import { colorsFor, Output, type Streams } from "./terminal/output.ts";
import { ownManifest } from "./terminal/versions.ts";

/** In the order of the help text. */
const commands: readonly Command[] = [
  trainCommand,
  sftCommand,
  evalCommand,
  generateCommand,
  chatCommand,
  logpsCommand,
  dataCommand,
  gradcheckCommand,
  mergeCommand,
  benchCommand,
  doctorCommand,
];

const helpFlags = ["-h", "--help"];
const versionFlags = ["-V", "--version"];

/**
 * Runs one command line.
 *
 * @param argv the words after `kto`, i.e. process.argv.slice(2)
 * @param streams where results and everything else go; the process's own by default
 * @returns the exit code: 0, that of the KtoError, or 1 for an internal error
 */
export async function main(argv: readonly string[], streams: Streams = process): Promise<number> {
  if (streams === process) endQuietlyOnClosedPipe();
  try {
    return await dispatch(argv, streams);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    return reportError(error, argv, streams);
  }
}

/** Runs the command line of this process; the exit code becomes the process's. */
export async function runProcess(): Promise<void> {
  process.exitCode = await main(process.argv.slice(2));
  // A judge's module may leave something open that would keep the process alive for ever. Text on its way into a pipe
  // goes out first.
  process.stdout.write("", () => process.stderr.write("", () => setTimeout(() => process.exit(), 100).unref()));
}

async function dispatch(argv: readonly string[], streams: Streams): Promise<number> {
  const [first, ...rest] = argv;
  const program = createProgram(streams);
  if (first === undefined) {
    streams.stderr.write(program.helpInformation());
    return 2;
  }
  const command = commands.find(({ name }) => name === first);
  if (command !== undefined) {
    if (!rest.some((word) => helpFlags.includes(word))) {
      const input = await readOptions(rest, command);
      await command.execute(input, (options) => new Output(streams, options));
      return 0;
    }
    await program.parseAsync([first, "--help"], { from: "user" });
  }
  if (first === "help") {
    const [topic] = rest;
    if (topic !== undefined && !commands.some(({ name }) => name === topic)) throw unknownCommand(topic);
  } else if (first.startsWith("-") && ![...helpFlags, ...versionFlags].includes(first)) {
    throw new ConfigError(`a command comes first, then its options: kto <command> ${first}; kto --help lists them.`);
  } else if (!first.startsWith("-")) {
    throw unknownCommand(first);
  }
  await program.parseAsync([...argv], { from: "user" });
  return 0;
}

/** The tree of commands for commander, which prints help and version. */
function createProgram(streams: Streams): Program {
  const program = new Program("kto")
    .description("Aligns language models with thumbs-up/thumbs-down feedback (KTO) on any GPU, through WebGPU.")
    .version(ownManifest().version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help, or a command's after its name")
    .helpCommand("help [command]", "print a command's help")
    .usage("<command> [options]")
    .addHelpText(
      "after",
      `
Options can also come from a file (--config run.yaml) or as trailing name=value.

Exit codes: 0 done; 2 options; 3 feedback file; 4 model folder; 5 no adapter;
6 device lost; 7 files; 8 numbers came out wrong; 9 no judge;
130, 143 stopped by SIGINT, SIGTERM; 1 a bug of ours.`,
    )
    .exitOverride()
    .configureHelp({ minWidthToWrap: 20 })
    .configureOutput({
      writeOut: (text) => void streams.stdout.write(text),
      writeErr: (text) => void streams.stderr.write(text),
      getOutHelpWidth: () => Math.min(streams.stdout.columns ?? 120, 120),
      getErrHelpWidth: () => Math.min(streams.stderr.columns ?? 120, 120),
    });
  for (const command of commands) {
    const subprogram = program
      .command(command.name)
      .summary(command.summary)
      .description(`${command.summary[0]?.toUpperCase() ?? ""}${command.summary.slice(1)}.`)
      .usage("[--config file] [options] [name=value ...]")
      .addHelpOption(new Option("-h, --help", "print this help").helpGroup("Other:"))
      .addHelpText("after", `\nExamples:\n${command.examples.map((line) => `  ${line}`).join("\n")}`);
    for (const option of helpOptions(command.schema)) subprogram.addOption(option);
  }
  return program;
}

function unknownCommand(name: string): ConfigError {
  const names = commands.map((command) => command.name);
  const near = nearest(name, names);
  const hint = near === undefined ? `commands are ${names.join(", ")}.` : `did you mean "${near}"?`;
  return new ConfigError(`unknown command "${name}": ${hint}`);
}

function reportError(error: unknown, argv: readonly string[], streams: Streams): number {
  const expected = error instanceof KtoError;
  const sentence = expected ? onOneLine(error.message) : `internal error (please report): ${errorMessage(error)}`;
  const colors = colorsFor(streams.stderr);
  const heading = error instanceof InterruptedError ? colors.yellow("stopped:") : colors.red("error:");
  streams.stderr.write(`${heading} ${sentence}\n`);
  // Asked of the words themselves, since the options may be what could not be read.
  if (argv.some((word) => /^(--)?debug(=(true|yes|on|1))?$/i.test(word)) && error instanceof Error) {
    streams.stderr.write(`${stackWithCauses(error)}\n`);
  }
  return expected ? error.exitCode : 1;
}

/** What a message quotes from a damaged file may break the line or the terminal. */
function onOneLine(message: string): string {
  const escaped = (character: string) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  return message.replace(/\s*[\r\n]\s*/g, " ").replace(/\p{Cc}/gu, escaped);
}

function stackWithCauses(error: Error): string {
  const own = error.stack ?? error.message;
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackWithCauses(error.cause)}` : own;
}

/** `kto logps --json | head` closes the pipe early: that is no error of ours. */
function endQuietlyOnClosedPipe(): void {
  process.stdout.once("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}
