/**
 * Makes `feedback.jsonl`: stories by the model itself on the training openings, a thumb for each from `judge.ts`.
 * `npx tsx examples/quickstart/make-feedback.ts`; the same adapter gives the same file.
 */
import { Device } from "../../src/engine/gpu/device.ts";
import { Model } from "../../src/engine/model/model.ts";
import { platform } from "../../src/engine/platform/index.ts";
import { loadTokenizer } from "../../src/engine/text/tokenizer.ts";
import { judgeStory } from "./judge.ts";
import { trainingOpenings } from "./openings.ts";
import { feedbackFile, modelFolder, sampleStories, survivesTokenization } from "./stories.ts";

const perOpening = 48;
const seed = 1;

const device = await Device.open();
const model = await Model.load(device, modelFolder);
const tokenizer = await loadTokenizer(modelFolder);
const stories = await sampleStories(model, tokenizer, trainingOpenings, {
  perOpening,
  seed,
  onProgress: (done, total) => process.stderr.write(`${done} of ${total} stories\n`),
});
const kept = stories.filter((story) => story.text !== "" && survivesTokenization(story, tokenizer));
const rows = kept.map(({ opening, text }) => ({ prompt: opening, completion: text, label: judgeStory(text).good }));
await platform.writeFileAtomic(feedbackFile, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));

const good = rows.filter(({ label }) => label).length;
process.stdout.write(
  `${rows.length} stories written to ${feedbackFile}: ${good} thumbs up, ${rows.length - good} thumbs down; ${stories.length - kept.length} left out because their text does not give back the tokens that were sampled.\n`,
);
model.free();
device.close();
