/** The options, the help text and the checks of `kto doctor`. What it does is in commands/doctor.ts. */
import * as z from "zod";
import { describe } from "../options/description.ts";
import { commonOptions } from "../options/shared.ts";

const schema = z.strictObject(commonOptions);

export type DoctorOptions = Readonly<z.output<typeof schema>>;

export const doctorDescription = describe({
  examples: ["kto doctor", "kto doctor --adapter lavapipe --json"],
  schema,
});
