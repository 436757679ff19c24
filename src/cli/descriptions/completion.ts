/** The options, the help text and the checks of `kto completion`. What it does is in commands/completion.ts. */
import * as z from "zod";
import { option } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { describe } from "../options/description.ts";
import { commonOptions } from "../options/shared.ts";

const { adapter: _, json: __, ...otherOptions } = commonOptions;

export const SHELLS = ["bash", "zsh", "fish"] as const;

const schema = z.strictObject({
  shell: option(z.enum(SHELLS), {
    group: "Shell",
    description: "whose completion is printed; the script says on its first lines where it belongs",
  }),
  ...otherOptions,
});

export type CompletionOptions = Readonly<z.output<typeof schema>> & { readonly json: false };

export const completionDescription = describe({
  examples: [
    "kto completion bash > ~/.local/share/bash-completion/completions/kto",
    'eval "$(kto completion zsh)"',
    "kto completion fish > ~/.config/fish/completions/kto.fish",
  ],
  schema,
  positional: "shell",
  parse: ({ values, where }): CompletionOptions => ({ ...parseOptions(schema, values, { where }), json: false }),
});
