/**
 * Every fixture in every variant: f32 with the adapter's features and with none (KTO_FEATURES=core), or on the machine
 * that the tests run texts on, without an adapter; gradient checkpointing, an adapter on every linear layer, also over
 * bases in 4 and 8 bits (log-probs and gradients against float64 on the same bytes), five updates, each of them from where
 * the device was before it (gradients and weights), moments in 8 bits, activations in f16 where the adapter has it, greedy
 * generation with the cache. Prints a line a fixture and variant and ends with exit code
 * 1 where one is out of bounds.
 *
 *   npx tsx scripts/family-matrix.ts [FIXTURE...] [all | core | machine] > bench/results/DATE-families.txt
 */
import { Device } from "../src/engine/gpu/device.ts";
import { Model } from "../src/engine/model/model.ts";
import { afterAllError, eachStepErrors, eightBitDistance } from "../test/helpers/adamw-steps.ts";
import {
  adapterErrors,
  checkpointingKeepsBits,
  familyErrors,
  fp16Errors,
  greedyMismatch,
  quantisedErrors,
  updateErrors,
} from "../test/helpers/families.ts";
import { FAMILY_FIXTURES, FIXTURES, fixtureFolder, HEAD_FIXTURES } from "../test/helpers/fixtures.ts";
import { machineDevice } from "../test/helpers/machine-device.ts";
import {
  boundsOf,
  EIGHT_BIT,
  GRADIENT,
  LOG_PROB,
  LOSS,
  ROUNDED_GRADIENT,
  ROUNDED_LOSS,
  STEP_LOSS,
  STEP_MOVED,
} from "../test/helpers/tolerances.ts";

const NAMES = [...FIXTURES, ...FAMILY_FIXTURES, ...HEAD_FIXTURES];
const asked = process.argv.slice(2);
/** Those that were asked for, or all of them. */
const chosen = <T extends string>(all: readonly T[]) =>
  all.some((one) => asked.includes(one)) ? all.filter((one) => asked.includes(one)) : all;
const names = chosen(NAMES);
const short = (value: number) => value.toExponential(1).padStart(8);

console.log(
  `Bounds: log-probs ${LOG_PROB} (qwen3_5 ${boundsOf("qwen3_5").logProb}), loss ${LOSS}, gradient tensors ${GRADIENT}, updates ${STEP_LOSS}, moments in 8 bits ${EIGHT_BIT}; in f16 loss ${ROUNDED_LOSS}, gradient tensors ${ROUNDED_GRADIENT} but qwen3_5's`,
);
let failed = false;
const wanted = asked.includes("machine") ? (["machine"] as const) : chosen(["all", "core"] as const);
for (const features of wanted) {
  const device = features === "machine" ? machineDevice() : await Device.open({ features, tuning: "off" });
  console.log(`\n${device.description}, ${features === "all" ? "all features" : "core features"}\n`);
  console.log(
    "fixture         log-prob     loss gradient  adapter  updates each: gradient  weights  after all    8 bit      nf4     int8  f16 gradient  checkpointing  greedy",
  );
  for (const name of names) {
    const policy = await Model.load(device, fixtureFolder(name, "policy"));
    const reference = await Model.load(device, fixtureFolder(name, "reference"));
    const errors = await familyErrors(name, policy, reference);
    const sameBits = await checkpointingKeepsBits(name, policy, reference);
    const adapter = await adapterErrors(name, policy);
    const updates = await updateErrors(name, reference);
    const each = await eachStepErrors(name, device);
    const afterAll = await afterAllError(name, device);
    const coded = await eightBitDistance(name, device);
    const nf4 = await quantisedErrors(name, device, "nf4");
    const int8 = await quantisedErrors(name, device, "int8");
    const f16 = device.gpu.features.has("shader-f16") ? await fp16Errors(name, policy, reference) : undefined;
    const greedy = (await greedyMismatch(name, policy)) === undefined;
    const update = Math.max(updates.loss, updates.norm);
    const { logProb, z0, isSteep } = boundsOf(name);
    const bounded: [string, number, number][] = [
      ["log-prob", errors.logProbs, logProb],
      ["z0", errors.z0, z0],
      ["loss", errors.loss, LOSS],
      ["gradient", errors.gradient, GRADIENT],
      ["adapter's gradient", adapter.gradient, GRADIENT],
      ["updates", update, STEP_LOSS],
      ["gradient of an update", each.gradient, GRADIENT],
      ["norm of an update", each.norm, GRADIENT],
      ["AdamW of an update", each.moved, STEP_MOVED],
      ["weights after an update", each.weights, STEP_LOSS],
      ["weights after all updates", afterAll, STEP_LOSS],
      ["moments in 8 bits", coded, EIGHT_BIT],
      ["log-prob over nf4", nf4.logProbs, logProb],
      ["gradient over nf4", nf4.gradient, GRADIENT],
      ["log-prob over int8", int8.logProbs, logProb],
      ["gradient over int8", int8.gradient, GRADIENT],
    ];
    if (f16) bounded.push(["loss in f16", f16.loss, ROUNDED_LOSS]);
    if (f16 && !isSteep) {
      bounded.push(
        ["log-prob in f16, of its bound", f16.logProbs, 1],
        ["gradient in f16", f16.gradient, ROUNDED_GRADIENT],
      );
    }
    const beyond = bounded.filter(([, value, bound]) => !(value <= bound));
    const good = beyond.length === 0 && sameBits && greedy;
    failed ||= !good;
    const numbers = [errors.logProbs, errors.loss, errors.gradient, adapter.gradient, update];
    const ofUpdates = `      ${short(each.gradient)} ${short(each.weights)}  ${short(afterAll)} `;
    const further = [coded, nf4.gradient, int8.gradient].map(short);
    const figures = [...numbers.map(short), ofUpdates, ...further].join(" ");
    const rounded = (f16 === undefined ? "not there" : short(f16.gradient).trim()).padStart(12);
    const words = `${rounded}  ${sameBits ? "same bits" : "OTHER BITS"}      ${greedy ? "same" : "OTHER"}`;
    console.log(
      `${name.padEnd(15)} ${figures}  ${words}${good ? "" : `   OUT OF BOUNDS ${beyond.map(([what, value]) => `${what} ${short(value).trim()}`).join(", ")}`}`,
    );
    policy.free();
    reference.free();
  }
  device.close();
}
process.exit(failed ? 1 : 0);
