/** The options of uploading to the Hugging Face hub, under transformers' names. */
import * as z from "zod";
import { optionGroup } from "./option.ts";

const { option } = optionGroup("Hub");

export const hubOptions = {
  push_to_hub: option(z.boolean().default(false), {
    description: "upload the result to the Hugging Face hub, with the token of HF_TOKEN or of huggingface_hub's login",
  }),
  hub_model_id: option(z.string().min(1).optional(), {
    description: "the repository, made if it is missing (default: the name of output_dir, under the token's user)",
    expects: 'the name of a repository, as "user/name"',
    placeholder: "name",
    aliases: ["push_to_hub_model_id"],
  }),
  hub_private_repo: option(z.boolean().optional(), {
    description: "make the repository private (default: as the account has it)",
  }),
  hub_token: option(z.string().min(1).optional(), {
    description: "the token, where it is not in the environment; it is neither printed nor written",
    placeholder: "token",
    aliases: ["push_to_hub_token"],
  }),
  hub_strategy: option(z.enum(["end", "every_save", "checkpoint", "all_checkpoints"]).default("every_save"), {
    description:
      "what is uploaded: the result; the model at each checkpoint too; and the last checkpoint, or all, to go on from",
  }),
};

/** Options that no file, tracker or message may repeat. */
export const SECRET_OPTIONS: readonly string[] = ["hub_token", "judge_request"];
