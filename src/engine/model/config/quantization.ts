/**
 * What config.json says of weights that are quantised already: bitsandbytes' nf4 can be read, everything else is refused by
 * its name. The weight files themselves say how (`../weights/bitsandbytes.ts`).
 */
import { shown } from "../../../errors.ts";
import type { Keys } from "./config-keys.ts";

const REMEDY = "use the unquantised model; load_in_4bit quantises it while it is loaded";

/** @throws ModelFormatError naming the method and what it asks for, unless it is bitsandbytes' nf4 */
export function checkQuantization(read: Keys): void {
  const given = read.object("quantization_config");
  if (given === undefined) return;
  const { json } = given;
  // Configurations of transformers before 4.36 name no method.
  const method =
    json.quant_method ?? (json.load_in_4bit === true || json.load_in_8bit === true ? "bitsandbytes" : null);
  if (method !== "bitsandbytes") {
    throw read.error(
      `the weights are quantised by ${shown(method)} ("quantization_config"), and only those of bitsandbytes in nf4 can be read; ${REMEDY}`,
    );
  }
  const type = json.load_in_4bit === true ? (json.bnb_4bit_quant_type ?? "fp4") : "8 bit (LLM.int8)";
  if (type !== "nf4") {
    throw read.error(
      `the weights are quantised by bitsandbytes as ${type === json.bnb_4bit_quant_type ? shown(type) : String(type)} ("quantization_config"), and only nf4 can be read; ${REMEDY}`,
    );
  }
}
