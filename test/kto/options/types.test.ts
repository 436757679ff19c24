/**
 * The option types that editors show are written out; here the compiler holds them to the schemas, in both directions,
 * and a test holds their docstrings to the help text and the defaults.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, expectTypeOf, test } from "vitest";
import type * as z from "zod";
import type { samplingOptions } from "../../../src/cli/options/sampling.ts";
import type { SamplingOptions } from "../../../src/engine/model/generate/sample.ts";
import type { ScheduleParameters } from "../../../src/engine/schedule.ts";
import { ktoOptions, type TrainerOptions, trainerOptions } from "../../../src/kto/options/kto.ts";
import { type OptionsOf, optionInfos, type TrainerShape } from "../../../src/kto/options/option.ts";
import type { RunOptions, runOptions } from "../../../src/kto/options/run.ts";
import type { scheduleParameterShape } from "../../../src/kto/options/schedule.ts";
import { type SftTrainerOptions, sftOptions, sftTrainerOptions } from "../../../src/kto/options/sft.ts";

/** The trainer's options as a command's schema types them. */
type Checked<Shape extends Readonly<Record<string, z.ZodType>>> = OptionsOf<TrainerShape<Shape>>;
/** An interface without its heritage. */
type Flat<Options> = { readonly [Name in keyof Options]: Options[Name] };

test("the interfaces have the names and types of the schemas", () => {
  expectTypeOf<Flat<TrainerOptions>>().toEqualTypeOf<Flat<Checked<(typeof ktoOptions)["shape"]>>>();
  expectTypeOf<Flat<SftTrainerOptions>>().toEqualTypeOf<Flat<Checked<(typeof sftOptions)["shape"]>>>();
  expectTypeOf<Flat<RunOptions>>().toEqualTypeOf<Flat<Checked<typeof runOptions>>>();
});

type Camel<Name> = Name extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name & string;
/** What the command line has beyond the five numbers of a draw. */
type Around = "greedy" | "do_sample" | "stop_strings" | "seed";

test("schedules and sampling have the options of the command line", () => {
  type Parameters = OptionsOf<typeof scheduleParameterShape>;
  expectTypeOf<Flat<ScheduleParameters>>().toEqualTypeOf<Flat<Parameters>>();
  expectTypeOf<keyof SamplingOptions>().toEqualTypeOf<Camel<Exclude<keyof typeof samplingOptions, Around>>>();
});

/** Docstrings of an interface's properties, each on one line. */
function docstrings(file: string, name: string): Map<string, string> {
  const text = readFileSync(join(import.meta.dirname, "../../../src/kto/options", file), "utf8");
  const body = new RegExp(`export interface ${name}[^{]*\\{\\n(.*?)\\n\\}`, "s").exec(text)?.[1] ?? "";
  const properties = body.matchAll(/\/\*\*(.*?)\*\/\n {2}readonly (\w+)/gs);
  return new Map([...properties].map(([, doc = "", option = ""]) => [option, doc.replace(/\s+(\* )?/g, " ").trim()]));
}

const ofRun = docstrings("run.ts", "RunOptions");

test.each([
  ["KTO", ktoOptions, trainerOptions.schema, docstrings("kto.ts", "TrainerOptions")],
  ["SFT", sftOptions, sftTrainerOptions.schema, docstrings("sft.ts", "SftTrainerOptions")],
] as const)("docstrings of %s begin with the help text and name the default", (_, command, trainer, own) => {
  const docs = new Map([...ofRun, ...own]);
  const infos = optionInfos(command).filter(({ name }) => name in trainer.shape);
  expect([...docs.keys()].sort()).toEqual(infos.map(({ name }) => name).sort());
  for (const { name, about, defaultValue } of infos) {
    const doc = docs.get(name) ?? "";
    const sentence = `${about.description.charAt(0).toUpperCase()}${about.description.slice(1)}.`;
    expect(doc.slice(0, sentence.length), name).toBe(sentence);
    if (typeof defaultValue !== "number" && typeof defaultValue !== "string" && typeof defaultValue !== "boolean")
      continue;
    const value = /\bdefault (-?[\w.-]*\w|"\w+")/i.exec(doc.slice(sentence.length))?.[1] ?? "nothing";
    expect(JSON.parse(value), name).toBe(defaultValue);
  }
});
