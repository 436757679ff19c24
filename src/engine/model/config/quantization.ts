/**
 * What config.json says of weights that are quantised already: bitsandbytes' nf4 can be read, everything else is
 * refused by its name. The weight files themselves say how (`../weights/bitsandbytes.ts`).
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
  const old = json.load_in_4bit === true || json.load_in_8bit === true ? "bitsandbytes" : undefined;
  const method = json.quant_method ?? old;
  if (method !== "bitsandbytes") {
    const named = method === undefined ? "a method without a name" : shown(method);
    throw read.error(
      `the weights are quantised by ${named} ("quantization_config"), and only those of bitsandbytes in nf4 can be read; ${REMEDY}`,
    );
  }
  const type = json.load_in_4bit === true ? (json.bnb_4bit_quant_type ?? "fp4") : "int8";
  if (type === "nf4") return;
  throw read.error(
    `the weights are quantised by bitsandbytes as ${shown(type)} ("quantization_config"), and of its formats only nf4 can be read; ${REMEDY}`,
  );
}
