/** The products whose configurations are read, in the order in which a file is asked. */
import { axolotl } from "./axolotl.ts";
import { trlMixture } from "./datasets.ts";
import type { Dialect } from "./dialect.ts";
import { llamaFactory } from "./llamafactory.ts";

export const dialects: readonly Dialect[] = [llamaFactory, axolotl, trlMixture];
