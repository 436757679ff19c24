/**
 * Help without the program: bin/kto.js asks here first, before it loads anything else. Pages come from dist/help,
 * where scripts/build.mjs writes them of the same descriptions that the commands have (descriptions/all.ts, `helpPages`).
 */
import { readFileSync } from "node:fs";
import { launchOf } from "../engine/platform/node-launch.ts";
import { helpTopic } from "./descriptions/list-of-commands.ts";
import { type HelpPage, helpText } from "./options/help-page.ts";

/**
 * The text that the words after `kto` ask for. undefined where they ask for no help, and under mpirun, where only one
 * of the processes shows it.
 *
 * @param pages the path of the folder dist/help
 * @param columns the terminal's width; undefined where there is none
 */
export function askedHelp(words: readonly string[], pages: string, columns: number | undefined): string | undefined {
  const topic = helpTopic(words);
  if (topic === undefined || launchOf(process.env) !== undefined) return undefined;
  return helpText(JSON.parse(readFileSync(`${pages}/${topic}.json`, "utf8")) as HelpPage, columns);
}
