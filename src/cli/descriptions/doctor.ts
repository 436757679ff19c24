/** The options, the help text and the checks of `kto doctor`. What it does is in commands/doctor.ts. */
import * as z from "zod";
import { modelNameOption } from "../../kto/options/model.ts";
import { optionGroup, reuse } from "../../kto/options/option.ts";
import { describe } from "../options/description.ts";
import { commonOptions, loadedModelOptions } from "../options/shared.ts";

const { option } = optionGroup("Model");

const schema = z.strictObject({
  model_name_or_path: option(modelNameOption.model_name_or_path.optional(), {
    description:
      "say what this adapter could train with a model, a local folder or an id on the Hugging Face hub: bytes of full training, LoRA and QLoRA; config.json and the headers of its weights are read, and no weights",
    placeholder: "model",
    aliases: ["model"],
  }),
  model_revision: reuse(loadedModelOptions.model_revision, { group: "Model" }),
  ...commonOptions,
});

export type DoctorOptions = Readonly<z.output<typeof schema>>;

export const doctorDescription = describe({
  examples: ["kto doctor", "kto doctor --model Qwen/Qwen3-4B", "kto doctor --adapter lavapipe --json"],
  schema,
});
