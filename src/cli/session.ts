/**
 * What the commands that run models begin with: a device, models, feedback turned into token ids, and the sentences
 * that the user should see about them. Imported by a command's body when it runs, since it loads Dawn.
 */
import { Device } from "../engine/device.ts";
import { Model } from "../engine/model/load.ts";
import { platform } from "../engine/platform/index.ts";
import { loadTokenizer } from "../engine/tokenizer.ts";
import { readFeedback } from "../kto/data/read.ts";
import { tokenizeRows } from "../kto/data/tokenize.ts";
import type { DatasetReport, Example } from "../kto/data/types.ts";
import type { Output } from "./output.ts";

/** Opens the device for a command and closes it whatever happens. */
export async function withDevice<T>(
  options: { readonly adapter: string },
  output: Output,
  body: (device: Device) => Promise<T>,
): Promise<T> {
  const device = await Device.open({ adapter: options.adapter });
  try {
    const { kind } = device;
    output.info(`adapter: ${device.description}${kind === "hardware" ? "" : ` (${kind}, no GPU: slow)`}`);
    return await body(device);
  } finally {
    device.close();
  }
}

/** Policy and reference. The same folder twice is read once; `undefined` for no reference. */
export async function loadModels(
  device: Device,
  folder: string,
  referenceFolder: string | undefined,
): Promise<{ policy: Model; reference: Model | undefined }> {
  const policy = await Model.load(device, folder);
  if (referenceFolder === undefined) return { policy, reference: undefined };
  const category = "reference weights";
  const reference =
    referenceFolder === folder
      ? Model.copyOf(policy, category)
      : await Model.load(device, referenceFolder, { category });
  return { policy, reference };
}

/** Reads and tokenizes a feedback file for a model; tells what was dropped, cut or odd. */
export async function loadExamples(
  model: Model,
  dataset: string,
  maxLength: number,
  output: Output,
): Promise<{ examples: Example[]; report: DatasetReport }> {
  const rows = await readFeedback(dataset);
  const needsTokenizer = rows.some((row) => "prompt" in row);
  const { vocabSize, contextLength } = model.config;
  const { examples, report } = tokenizeRows(rows, {
    ...(needsTokenizer ? { tokenizer: await loadTokenizer(model.folder) } : {}),
    vocabSize,
    contextLength,
    maxLength: Math.min(maxLength, contextLength),
  });
  for (const { reason, count, firstLines } of report.dropped) {
    const more = count > firstLines.length ? ", …" : "";
    output.warning(
      `${count} ${count === 1 ? "row" : "rows"} dropped: ${reason} (line ${firstLines.join(", ")}${more}).`,
    );
  }
  if (report.cut > 0) {
    output.warning(
      `${report.cut} ${report.cut === 1 ? "completion was" : "completions were"} cut to max_length ${Math.min(maxLength, contextLength)}.`,
    );
  }
  for (const warning of report.warnings) output.warning(warning);
  return { examples, report };
}

export { platform };
