/** The completion of `kto` for zsh, with the lines of the help text. */
import type { CompletedCommand, CompletedOption } from "./completions.ts";

export function zshCompletion(commands: readonly CompletedCommand[]): string {
  const list = [...commands, { name: "help", summary: "print a command's help" }];
  return `#compdef kto kto-webgpu
# Completion of kto for zsh: kto completion zsh > a folder of $fpath, as _kto
_kto() {
  local -a commands
  commands=(
${list.map(({ name, summary }) => `    ${quoted(`${name}:${summary}`)}`).join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
    help) _describe command commands ;;
${commands.map(caseOf).join("\n")}
  esac
}
if [ "$funcstack[1]" = "_kto" ]; then _kto "$@"; else compdef _kto kto kto-webgpu; fi
`;
}

function caseOf({ name, options, words }: CompletedCommand): string {
  const rest = words.length > 0 ? `1:word:(${words.join(" ")})` : "*:configuration file:_files -g '*.(yaml|yml|json)'";
  const specs = [...options.map(specOf), rest];
  return `    ${name})
      _arguments -S \\
${specs.map((spec) => `        ${quoted(spec)}`).join(" \\\n")}
      ;;`;
}

/** An option in the form that `_arguments` reads: "--name=[description]:message:action". */
function specOf({ name, description, value }: CompletedOption): string {
  const told = description.replace(/[\\[\]:]/g, "\\$&");
  if (value.kind === "flag") return `--${name}[${told}]`;
  const action = { file: "_files", folder: "_files -/", text: " ", words: "" }[value.kind];
  return `*--${name}=[${told}]:${name}:${value.kind === "words" ? `(${value.words.join(" ")})` : action}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
