/** The completion of `kto` for fish, with the lines of the help text. */
import type { CompletedCommand, CompletedOption } from "./completions.ts";

export function fishCompletion(commands: readonly CompletedCommand[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const first = `not __fish_seen_subcommand_from ${names} help`;
  return `# Completion of kto for fish: kto completion fish > ~/.config/fish/completions/kto.fish
complete -c kto-webgpu -w kto
complete -c kto -n ${quoted(first)} -f
complete -c kto -n ${quoted(first)} -l help -d 'print the help'
complete -c kto -n ${quoted(first)} -l version -d 'print the version'
complete -c kto -n ${quoted(first)} -a help -d ${quoted("print a command's help")}
complete -c kto -n '__fish_seen_subcommand_from help' -f -a ${quoted(names)}
${commands.map((command) => linesOf(command, first)).join("\n")}
`;
}

function linesOf({ name, summary, options, words }: CompletedCommand, first: string): string {
  const here = quoted(`__fish_seen_subcommand_from ${name}; and not __fish_seen_subcommand_from help`);
  const follow = words.length > 0 ? [`complete -c kto -n ${here} -f -a ${quoted(words.join(" "))}`] : [];
  return [
    `complete -c kto -n ${quoted(first)} -a ${name} -d ${quoted(summary)}`,
    ...follow,
    ...options.map(
      (option) => `complete -c kto -n ${here} -l ${option.name}${followerOf(option)} -d ${quoted(option.description)}`,
    ),
  ].join("\n");
}

/** -x: a value that is no file; -r: a value; neither: none is needed. */
function followerOf({ value }: CompletedOption): string {
  if (value.kind === "flag") return "";
  if (value.kind === "words") return ` -x -a ${quoted(value.words.join(" "))}`;
  if (value.kind === "folder") return " -x -a '(__fish_complete_directories)'";
  return value.kind === "file" ? " -r -F" : " -x";
}

function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}
