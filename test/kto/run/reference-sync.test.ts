/** A reference that follows the policy: when it moves, how far, and that a run that is resumed goes on with it. */
import { describe, expect, it } from "vitest";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { mix } from "../../../src/kernels/float64/mix.ts";
import { KtoTrainer, type TrainerInputs } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits, EPSILON, expectWithin, float64 } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { readExamples } from "../../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";

const device = await sharedDevice();
const folder = temporaryFolder();

const OPTIONS: TrainerInputs["options"] = {
  ...{ per_device_train_batch_size: 4, learning_rate: 1e-3, max_steps: 4, save_steps: 1, logging_steps: 1, seed: 3 },
  ...{ sync_ref_model: true, ref_model_mixup_alpha: 0.25, ref_model_sync_steps: 2 },
};

const load = () => Model.load(device, llama, { storage: "f32" });
const weightsOf = async (model: Model) => await device.download(wholeArena(model.weights));

describe("sync_ref_model", () => {
  it("mixes the policy's weights into the reference every so many updates", async () => {
    const policy = await load();
    const reference = Model.copyOf(policy, "reference weights");
    const trainer = await KtoTrainer.create({
      policy,
      reference,
      examples: readExamples("llama"),
      options: OPTIONS ?? {},
    });
    const moved: boolean[] = [];
    let before = await weightsOf(reference);
    for await (const _ of trainer) {
      const [after, trained, last] = [await weightsOf(reference), await weightsOf(policy), before];
      moved.push(bits(after).join() !== bits(last).join());
      const bound = (i: number) => 3 * EPSILON * (Math.abs(trained[i] ?? 0) + Math.abs(last[i] ?? 0));
      const mixed = mix(float64(trained), float64(last), 0.25);
      if (moved.at(-1)) expectWithin("reference", after, mixed, bound);
      before = after;
    }
    expect(moved).toEqual([false, true, false, true]);
    trainer.free();
    for (const model of [policy, reference]) model.free();
  });

  it("goes on to the same bits from a checkpoint, which holds the reference", async () => {
    const run = async (outputFolder: string, stopAfter?: number, resume = false) => {
      const policy = await load();
      const options = { ...OPTIONS, resume_from_checkpoint: resume };
      const trainer = await KtoTrainer.create({ policy, examples: readExamples("llama"), outputFolder, options });
      for await (const { step } of trainer) if (step === stopAfter) break;
      const weights = bits(await device.download(wholeArena(policy.trained)));
      const log = trainer.log.map(({ loss, kl, step }) => ({ loss, kl, step }));
      trainer.free();
      policy.free();
      return { weights, log };
    };
    const [whole, broken] = [freshPath(folder, "whole"), freshPath(folder, "broken")];
    const straight = await run(whole);
    await run(broken, 3);
    const resumed = await run(broken, undefined, true);
    expect(resumed).toEqual(straight);
    expect(await run(freshPath(folder, "again"))).toEqual(straight);
  });

  it("is refused where there are no weights to be moved", async () => {
    const base = await load();
    const adapter = LoraAdapter.create(device, base.config, { rank: 2, alpha: 4, dropout: 0, rslora: false });
    const examples = readExamples("llama");
    const policy = base.withAdapter(adapter);
    await expect(KtoTrainer.create({ policy, examples, options: OPTIONS ?? {} })).rejects.toThrow(
      "an adapter is trained",
    );
    const cached = { ...OPTIONS, precompute_ref_log_probs: true };
    await expect(KtoTrainer.create({ policy: base, examples, options: cached })).rejects.toThrow(
      "computed once, before",
    );
    const stored = await Model.load(device, llama, { storage: "bf16" });
    const given = KtoTrainer.create({ policy: base, reference: stored, examples, options: OPTIONS ?? {} });
    await expect(given).rejects.toThrow("is not a copy of the model in f32");
    for (const one of [adapter, base, stored]) one.free();
  });
});
