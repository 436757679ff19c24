/** The options, the help text and the checks of `kto bench`. What it does is in commands/bench.ts. */
import * as z from "zod";
import { option } from "../../kto/options/option.ts";
import { parseOptions } from "../../kto/options/parse.ts";
import { describe } from "../options/description.ts";
import { commonOptions } from "../options/shared.ts";

const group = "Benchmarks";
const { json: _, ...otherOptions } = commonOptions;

const schema = z.strictObject({
  quick: option(z.boolean().default(false), {
    group,
    description: "fewer of them and less often, in under two minutes",
  }),
  filter: option(z.string().min(1).optional(), {
    group,
    description: "only those with this in their name, e.g. matmul",
    expects: "a part of a name",
  }),
  peers: option(z.boolean().optional(), {
    group,
    description: "time other engines on the same work; they are there in a checkout only (default: unless --quick)",
  }),
  json: option(z.string().min(1).optional(), {
    group,
    description: 'write the results into this file; "-" writes them to stdout instead of the table',
    expects: 'the name of a file, or "-"',
    placeholder: "file",
  }),
  ...otherOptions,
});

export type BenchOptions = Omit<z.output<typeof schema>, "json"> & {
  readonly json: boolean;
  readonly jsonFile: string | undefined;
};

export const benchDescription = describe({
  examples: ["kto bench --quick", "kto bench --json results.json", "kto bench --filter matmul --adapter lavapipe"],
  schema,
  parse: ({ values, ...context }): BenchOptions => {
    const { json, ...options } = parseOptions(schema, values, context);
    return { ...options, json: json === "-", jsonFile: json === "-" ? undefined : json };
  },
});
