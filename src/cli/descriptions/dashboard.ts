/** The options, the help text and the checks of `kto dashboard`. What it does is in commands/dashboard.ts. */
import * as z from "zod";
import { optionGroup } from "../../kto/options/option.ts";
import { describe } from "../options/description.ts";
import { commonOptions } from "../options/shared.ts";

const { option } = optionGroup("Dashboard");
const { adapter: _, ...outputOptions } = commonOptions;

const schema = z.strictObject({
  folders: option(z.array(z.string().min(1)).default(["."]), {
    description: "output folders of runs, or folders that hold some (default: this one)",
    expects: "folders",
    placeholder: "folders",
  }),
  port: option(z.number().int().min(0).max(65535).default(6007), {
    description: "the port on 127.0.0.1; 0 for any that is free",
  }),
  ...outputOptions,
});

export type DashboardCommandOptions = Readonly<z.output<typeof schema>>;

export const dashboardDescription = describe({
  examples: ["kto dashboard ./aligned", "kto dashboard ./out --port 8080"],
  schema,
  positional: "folders",
});
