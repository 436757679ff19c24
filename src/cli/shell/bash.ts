/** The completion of `kto` for bash 3.2 and newer, with and without the package bash-completion. */
import type { CompletedCommand, CompletedOption } from "./completions.ts";

export function bashCompletion(commands: readonly CompletedCommand[]): string {
  const names = commands.map(({ name }) => name);
  return `# Completion of kto for bash: kto completion bash > ~/.local/share/bash-completion/completions/kto
_kto() {
  local word=\${COMP_WORDS[COMP_CWORD]} option=\${COMP_WORDS[COMP_CWORD-1]} before= parted= command=\${COMP_WORDS[1]} options= values= kind=none
  COMPREPLY=()
  # bash parts a word at "=": --name=value and name=value are three words there.
  if [ "$option" = "=" ] && [ "$COMP_CWORD" -gt 2 ]; then
    option=\${COMP_WORDS[COMP_CWORD-2]} parted=yes
  elif [ "$word" = "=" ]; then
    word= parted=yes
  elif [[ "$word" == *=* ]]; then
    option=\${word%%=*} before=\${word%%=*}= parted=yes word=\${word#*=}
  fi
  if [ -z "$parted" ] && [ "\${option#--}" = "$option" ]; then option=; fi
  option=\${option//-/_}
  option=--\${option#__}
  if [ "$COMP_CWORD" -le 1 ]; then
    COMPREPLY=($(compgen -W "${[...names, "help", "--help", "--version"].join(" ")}" -- "$word"))
    return
  fi
  case $command in
    help)
      COMPREPLY=($(compgen -W "${names.join(" ")}" -- "$word"))
      return
      ;;
${commands.map(caseOf).join("\n")}
  esac
  if [ "$kind" = flag ] && [ "\${word#-}" != "$word" ]; then kind=none; fi
  case $kind in
    other) return ;; # of the files here
    words) COMPREPLY=($(compgen -P "$before" -W "$values" -- "$word")); return ;;
    flag) COMPREPLY=($(compgen -P "$before" -W "$values" -- "$word")) ;;
  esac
  if [ "\${word#-}" != "$word" ]; then
    word=\${word#-} word=\${word#-}
    COMPREPLY=($(compgen -W "$options" -- "--\${word//-/_}"))
  elif [ "$kind" = none ]; then
    COMPREPLY=($(compgen -W "$values" -- "$word"))
  fi
}
complete -o default -F _kto kto kto-webgpu
`;
}

function caseOf({ name, options, words }: CompletedCommand): string {
  const byKind = (kind: string) =>
    options.filter(({ value }) => value.kind === kind && !(value.kind === "flag" && value.words.length === 0));
  const withWords = options.flatMap(({ name, value }) =>
    value.kind === "words" ? [`        --${name}) kind=words values="${value.words.join(" ")}" ;;`] : [],
  );
  const cases = [
    ...withWords,
    ...patternOf(byKind("flag"), 'kind=flag values="true false"'),
    ...patternOf(["file", "folder", "text"].flatMap(byKind), "kind=other"),
  ];
  return `    ${name})
      options="${options.map((option) => `--${option.name}`).join(" ")}"
      values="${words.join(" ")}"
      case $option in
${cases.join("\n")}
      esac
      ;;`;
}

function patternOf(options: readonly CompletedOption[], then: string): string[] {
  return options.length === 0 ? [] : [`        ${options.map(({ name }) => `--${name}`).join("|")}) ${then} ;;`];
}
