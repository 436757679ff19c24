/** `kto completion`: prints the script by which a shell completes the command line. */
import { commandsToComplete } from "../descriptions/all.ts";
import { type CompletionOptions, completionDescription } from "../descriptions/completion.ts";
import { command } from "../options/command.ts";
import { bashCompletion } from "../shell/bash.ts";
import { fishCompletion } from "../shell/fish.ts";
import { zshCompletion } from "../shell/zsh.ts";
import type { Output } from "../terminal/output.ts";

const scripts = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion };

export default command(completionDescription, runCompletion);

async function runCompletion({ shell }: CompletionOptions, output: Output): Promise<void> {
  output.piece(scripts[shell](commandsToComplete()));
}
