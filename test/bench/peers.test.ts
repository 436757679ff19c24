/**
 * The other engines that benchmarks compare with: a peer that does the same work gives a time, one that disagrees gives
 * the reason. Each runs in a process of its own, as in `kto bench`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PeerWork } from "../../bench/measure/peer-work.ts";
import { peerRunner } from "../../bench/peers/run.ts";
import { stepTruth } from "../../bench/step.ts";
import { writeSafetensors } from "../../src/engine/files/safetensors.ts";
import { ALL_SHAPES, sharedDevice } from "../helpers/device.ts";
import { llamaConfig, randomModel } from "../helpers/models.ts";

const runPeers = peerRunner(undefined, () => undefined);
const time = { median_ms: expect.any(Number), spread: expect.any(Number) };

let scratch = "";
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "kto-peers-"));
});
afterAll(() => rmSync(scratch, { recursive: true }));

// The head and the whole update take them a minute to compile; `kto bench` checks them before it times them, too.
describe("peers", () => {
  test("do matmuls", async () => {
    expect(await runPeers({ kind: "matmul", layout: "TN", M: 33, N: 20, K: 7 })).toEqual({
      "jax-js": time,
      tfjs: time,
    });
  });

  test.runIf(ALL_SHAPES)("do the head and its gradients", async () => {
    const work: PeerWork = { kind: "head", backward: true, rows: 128, vocabulary: 300, width: 16 };
    expect(await runPeers(work)).toEqual({ "jax-js": time, tfjs: time });
  });

  test.runIf(ALL_SHAPES)("jax-js does the whole update, and is told apart from one that does another", async () => {
    const device = await sharedDevice();
    const folder = await randomModel(scratch, llamaConfig({ num_attention_heads: 4, num_key_value_heads: 2 }), 1);
    const batch = { rows: 3, prompt: 5, completion: 4 };
    const truth = await stepTruth(device, folder, batch);
    const gradients = join(folder, "gradients.safetensors");
    await writeSafetensors(gradients, truth.gradients);
    const work = { kind: "step", folder, batch, losses: truth.losses, gradients } as const;
    expect(await runPeers(work)).toEqual({ "jax-js": time });
    const [first = 0, second = 0, ...rest] = truth.losses;
    expect(first).not.toBeCloseTo(second, 3); // the updates are seen in the losses
    const { "jax-js": wrong } = await runPeers({ ...work, losses: [first, second + 0.01, ...rest] });
    expect(wrong).toEqual({ error: expect.stringMatching(/^the loss of update 2 is 0\.\d+, ours 0\.\d+$/) });
  });
});
