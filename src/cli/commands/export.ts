/** `kto export`: writes a model or an adapter as a file for llama.cpp and Ollama. Needs no GPU. */

import { isGguf } from "../../engine/files/gguf.ts";
import { writeOwnText } from "../../engine/files/own-text.ts";
import { readModelConfig, textFolder } from "../../engine/model/config/folder.ts";
import { readGenerationDefaults } from "../../engine/model/config/generation-config.ts";
import { exportAdapterGguf, exportGguf } from "../../engine/model/export/export-gguf.ts";
import { isNameForOllama, modelfile, ollamaTemplate } from "../../engine/model/export/modelfile.ts";
import { platform } from "../../engine/platform/index.ts";
import { loadChatTemplate } from "../../engine/text/chat-template.ts";
import { loadTokenizer } from "../../engine/text/tokenizer.ts";
import { ConfigError, FileError } from "../../errors.ts";
import { type ExportOptions, exportDescription } from "../descriptions/export.ts";
import { command } from "../options/command.ts";
import { modelFolders } from "../session/models.ts";
import { checkOutputFile, checkReplacesNone, hasEntry, regularSize } from "../terminal/files.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(exportDescription, runExport);

async function runExport(options: ExportOptions, output: Output): Promise<void> {
  const { gguf: type, output: path, merge_adapter: merges } = options;
  const named = options.model_name_or_path ?? options.adapter_name_or_path ?? "";
  const { base, baseName, adapter } = await modelFolders(
    {
      model_name_or_path: named,
      model_revision: options.model_revision,
      ...(options.model_name_or_path === undefined ? {} : { adapter_name_or_path: options.adapter_name_or_path }),
    },
    output,
  );
  if (options.model_name_or_path === undefined && adapter === undefined) {
    throw new ConfigError(
      `adapter_name_or_path "${named}" is a whole model and no adapter; name it as model_name_or_path.`,
    );
  }
  if (merges && adapter === undefined) {
    throw new ConfigError(`merge_adapter is set, but ${named} is no adapter and adapter_name_or_path names none.`);
  }
  const recipePath = await modelfilePath(path);
  for (const file of [path, recipePath]) if (file !== undefined) await checkOutputFile(file);
  await checkReplacesNone(path, [base, adapter]);
  await checkReplaceable(path);
  const naming = {
    name: platform.baseName(platform.absolutePath(named)),
    onWarning: (sentence: string) => output.warning(sentence),
  };
  const isAdapter = adapter !== undefined && !merges;
  const { types } = await working(output, `writing ${path}`, () =>
    isAdapter
      ? exportAdapterGguf({ folder: adapter, baseFolder: base }, path, type, naming)
      : exportGguf({ folder: base, adapterFolder: adapter }, path, type, naming),
  );
  const exported = { base, baseName, adapter, isAdapter };
  if (recipePath !== undefined) await writeModelfile(exported, path, recipePath, output);
  const counts = Object.entries(types).map(([one, count]) => `${count} ${one}`);
  if (output.json) {
    output.jsonLine({ output: path, model: baseName, adapter: adapter ?? null, types, modelfile: recipePath ?? null });
    return;
  }
  output.result(`wrote ${isAdapter ? "the adapter" : "the model"} to ${path} (tensors: ${counts.join(", ")})`);
  if (recipePath === undefined) return;
  const name = platform.baseName(stemOf(path)).toLowerCase();
  output.result(`for Ollama: ollama create ${name} -f ${recipePath}`);
}

function stemOf(path: string): string {
  return path.replace(/\.gguf$/i, "");
}

/** Where the Modelfile goes; nowhere beside a device or a pipe, which is no file that Ollama could read. */
async function modelfilePath(path: string): Promise<string | undefined> {
  const isOther = (await regularSize(path)) === undefined && (await hasEntry(path));
  return isOther ? undefined : `${stemOf(path)}.Modelfile`;
}

/**
 * An earlier export is replaced; any other file, such as the weights that are read, is not.
 *
 * @throws FileError naming the file
 */
async function checkReplaceable(path: string): Promise<void> {
  // What is a device or a pipe is written into, and has no beginning to look at.
  const size = await regularSize(path);
  if (size === undefined || size === 0 || (await isGguf(path))) return;
  throw new FileError(
    `Cannot write ${path}: it exists and is no GGUF file, so it is not replaced; choose another output, or remove it first.`,
  );
}

interface Exported {
  readonly base: string;
  readonly baseName: string;
  readonly adapter: string | undefined;
  /** Only the adapter was written. */
  readonly isAdapter: boolean;
}

/** Writes the Modelfile beside the GGUF file, unless one lies there that somebody changed. */
async function writeModelfile(
  { base, baseName, adapter, isAdapter }: Exported,
  path: string,
  recipe: string,
  output: Output,
): Promise<void> {
  const file = platform.baseName(path);
  if (!isNameForOllama(file)) {
    output.warning(`Ollama cannot read the name ${JSON.stringify(file)} in a Modelfile, so none is written.`);
    return;
  }
  const texts = await textFolder({ folder: base, adapter: { folder: adapter } });
  const { contextLength } = await readModelConfig(base);
  const chat = await loadChatTemplate(texts);
  const template = chat && ollamaTemplate(chat, await bosText(texts));
  if (chat !== undefined && template === undefined) {
    output.warning(
      `${chat.source} does more than put fixed texts around messages, so the Modelfile has no TEMPLATE: Ollama looks whether it knows the template; llama.cpp runs it as it is.`,
    );
  }
  const baseFile = "base.gguf";
  const text = modelfile({
    model: isAdapter ? baseFile : file,
    adapter: isAdapter ? file : undefined,
    template,
    sampling: await readGenerationDefaults(base),
    contextLength,
    notes: isAdapter
      ? [`The base of the adapter: kto export --model_name_or_path ${baseName} --gguf f16 --output ${baseFile}`]
      : [],
  });
  if (!(await writeOwnText(recipe, text, ["# ", ""]))) {
    output.warning(`${recipe} was changed since kto wrote it, or by kto never, and is left as it is.`);
  }
}

/** The text of the token that llama.cpp puts before a text, if it puts one. */
async function bosText(folder: string): Promise<string | undefined> {
  if ((await platform.exists(platform.joinPath(folder, "tokenizer.json"))) === undefined) return undefined;
  const tokenizer = await loadTokenizer(folder);
  return tokenizer.addsBos && tokenizer.bosTokenId !== undefined ? tokenizer.decode([tokenizer.bosTokenId]) : undefined;
}
