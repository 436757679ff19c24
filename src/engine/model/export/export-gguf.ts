/**
 * A model folder, or a LoRA adapter, as one GGUF file for llama.cpp: settings, tokenizer, chat template and tensors.
 * Read by ranges and written as a stream on the host, a piece of a tensor at a time (GPT-2's matrices, which are
 * transposed, one at a time). The format is files/gguf.ts, the names are architectures.ts.
 */
import { ConfigError } from "../../../errors.ts";
import {
  type GgufMetadata,
  type GgufTensor,
  type GgufType,
  type GgufValue,
  rowsFit,
  writeGguf,
} from "../../files/gguf.ts";
import { readJsonObject } from "../../files/json-file.ts";
import { platform } from "../../platform/index.ts";
import { chatTemplateTexts } from "../../text/chat-template.ts";
import { ggufVocabulary } from "../../text/gguf-vocabulary.ts";
import { createTokenizer } from "../../text/tokenizer.ts";
import type { ModelConfig } from "../config/config.ts";
import { readModelConfig, textFolder } from "../config/folder.ts";
import { linearModules } from "../lora-modules.ts";
import { openHostWeights } from "../merge.ts";
import { type AdapterFile, openAdapter } from "../peft-tensors.ts";
import { architectureOf, frequencyDivisors } from "./architectures.ts";
import { mapped, permutedRows, scaled, tiled, transposed } from "./reordered.ts";

/** What was written. */
export interface GgufReport {
  /** Tensors by the type that they were written in. */
  readonly types: Readonly<Partial<Record<GgufType, number>>>;
}

export interface GgufOptions {
  /** The name that programs show; default: that of the folder. */
  readonly name?: string;
  /** Takes sentences on what llama.cpp will do otherwise, and on what is left out; default console.warn. */
  readonly onWarning?: (sentence: string) => void;
}

/** `general.file_type`: llama.cpp's number for the type of most tensors. */
const FILE_TYPES: Readonly<Record<GgufType, number>> = { f32: 0, f16: 1, q4_0: 2, q8_0: 7, bf16: 32 };

/**
 * Writes a whole model, with an adapter merged into it if one is given; the adapter's tokenizer goes before the
 * model's. Norms, biases and learned positions are f32. A matrix whose rows are no whole number of blocks of 32 is f16
 * where the type is quantised, and the head (the embedding where it is tied) is q8_0 where it is q4_0, as in
 * llama.cpp's own files, whose heads are finer than the rest too.
 *
 * @throws ModelFormatError for a model or a tokenizer that llama.cpp would compute otherwise, naming what; FileError;
 * NumericError for a value that the type cannot hold
 */
export async function exportGguf(
  model: { readonly folder: string; readonly adapterFolder?: string | undefined },
  path: string,
  type: GgufType,
  { name = platform.baseName(model.folder), onWarning = console.warn }: GgufOptions = {},
): Promise<GgufReport> {
  const { folder, adapterFolder } = model;
  const texts = await textFolder({ folder, adapter: { folder: adapterFolder } });
  const weights = await openHostWeights(folder, adapterFolder, { onWarning });
  try {
    const { config } = weights;
    const architecture = architectureOf(config, folder);
    for (const sentence of architecture.warnings) onWarning(sentence);
    const metadata = new Map<string, GgufValue>([
      ["general.architecture", architecture.name],
      ["general.type", "model"],
      ["general.name", name],
      ["general.file_type", { u32: FILE_TYPES[type] }],
      ["general.quantization_version", { u32: 2 }],
      ...architecture.settings,
      ...(await textMetadata(texts, config, onWarning)),
    ]);
    const head = config.tiedHead ? "token_embd.weight" : "output.weight";
    const linear = new Set(linearModules(config).map(({ name: module }) => `${module}.weight`));
    const tensors = weights.tensors.map((tensor): GgufTensor => {
      const own = architecture.tensorName(tensor.part);
      const isTurned = config.inOutWeights && linear.has(tensor.part);
      // Taps of convolutions are [channels, 1, taps], which llama.cpp has as a matrix in f32.
      const areTaps = tensor.shape.length === 3;
      const shape = isTurned ? [...tensor.shape].reverse() : tensor.shape.filter((_, axis) => !(areTaps && axis === 1));
      const [rows = 0, columns = 1] = tensor.shape;
      const data = () => {
        if (isTurned) return transposed(tensor.pieces(), rows, columns);
        if (architecture.isPermuted(tensor.part)) return permutedRows(tensor.pieces(), config.headSize, columns);
        const [heads, written] = [architecture.tiled(tensor.part), architecture.written(tensor.part)];
        const pieces = written ? mapped(tensor.pieces(), written) : tensor.pieces();
        return heads ? tiled(pieces, heads, shape.length > 1 ? (shape.at(-1) ?? 1) : 1) : pieces;
      };
      return { name: own, shape, type: areTaps ? "f32" : typeOf(own, shape, type, head), data };
    });
    for (const [own, values] of frequencyDivisors(config)) {
      const data = async function* () {
        yield values;
      };
      tensors.push({ name: own, shape: [values.length], type: "f32", data });
    }
    await writeGguf(path, metadata, tensors);
    return reportOf(tensors);
  } finally {
    await weights.close();
  }
}

/**
 * Writes an adapter as llama.cpp applies it to the GGUF file of its base (`--lora`). llama.cpp scales every layer by
 * alpha / rank with one alpha; where an adapter's layers have others (rslora, alpha_pattern) the difference goes into B.
 * The matrix A of an embedding lies the other way round there, since its rows are looked up by token.
 *
 * @param type f32, f16 or bf16: rows of a low rank are not quantised
 * @throws ModelFormatError; ConfigError for a quantised type; FileError; NumericError
 */
export async function exportAdapterGguf(
  adapter: { readonly folder: string; readonly baseFolder: string },
  path: string,
  type: GgufType,
  { name = platform.baseName(adapter.folder), onWarning = console.warn }: GgufOptions = {},
): Promise<GgufReport> {
  if (type === "q8_0" || type === "q4_0") {
    throw new ConfigError(
      `An adapter alone is not written as ${type}, which saves nothing: use f32, f16 or bf16, or merge it into its base.`,
    );
  }
  const { folder, baseFolder } = adapter;
  const config = await readModelConfig(baseFolder);
  const architecture = architectureOf(config, baseFolder);
  const file = await openAdapter(folder, { config, folder: baseFolder }, onWarning);
  try {
    const { alpha } = file.options;
    const beyond = beyondLora(file, config);
    if (beyond !== undefined) {
      throw new ConfigError(
        `The adapter ${folder} ${beyond}, which llama.cpp's adapters cannot have: write the merged model (merge_adapter).`,
      );
    }
    const metadata: GgufMetadata = new Map<string, GgufValue>([
      ["general.architecture", architecture.name],
      ["general.type", "adapter"],
      ["general.name", name],
      ["general.file_type", { u32: FILE_TYPES[type] }],
      ["general.quantization_version", { u32: 2 }],
      ["adapter.type", "lora"],
      ["adapter.lora.alpha", { f32: alpha }],
    ]);
    const tensors = file.modules.flatMap(({ kind, name: module, inputs, outputs, rank, scale }): GgufTensor[] => {
      const part = `${module}.weight`;
      const own = architecture.tensorName(part);
      const heads = architecture.tiled(part);
      const isLookedUp = kind === "embedding";
      const values = async function* (which: "A" | "B") {
        yield await file.read(isLookedUp ? `${module}.lora_embedding_${which}` : `${module}.lora_${which}.weight`);
      };
      return [
        {
          name: `${own}.lora_a`,
          shape: isLookedUp ? [inputs, rank] : [rank, inputs],
          type,
          data: () => {
            if (isLookedUp) return transposed(values("A"), rank, inputs);
            return heads?.axis === "columns" ? tiled(values("A"), heads, inputs) : values("A");
          },
        },
        {
          name: `${own}.lora_b`,
          shape: [outputs, rank],
          type,
          data: () => {
            const b = scaled(values("B"), (scale * rank) / alpha);
            if (architecture.isPermuted(part)) return permutedRows(b, config.headSize, rank);
            return heads?.axis === "rows" ? tiled(b, heads, rank) : b;
          },
        },
      ];
    });
    await writeGguf(path, metadata, tensors);
    return reportOf(tensors);
  } finally {
    await file.close();
  }
}

/**
 * What an adapter has beyond the two small matrices that llama.cpp applies (src/llama-adapter.cpp, read on 2026-11-30), a
 * clause; undefined where that is all.
 */
function beyondLora({ options, modules, saved }: AdapterFile, { tiedHead }: ModelConfig): string | undefined {
  if (options.dora) return "has DoRA (use_dora)";
  const [part] = saved.parts;
  if (part !== undefined) return `holds "${part}" whole (modules_to_save or bias)`;
  const special = modules.find(({ kind }) => kind !== "linear");
  // There the two are one tensor, with one adapter for both or none.
  return special && tiedHead ? `has an adapter of "${special.name}" in a model whose head is its embedding` : undefined;
}

/** Tokenizer and chat templates. A folder without tokenizer.json gives a file that knows token ids only. */
async function textMetadata(
  folder: string,
  config: ModelConfig,
  onWarning: (sentence: string) => void,
): Promise<[string, GgufValue][]> {
  const path = platform.joinPath(folder, "tokenizer.json");
  const json = await readJsonObject(path);
  if (json === undefined) {
    onWarning(`${path} does not exist, so the file has no tokenizer: programs can give it token ids only.`);
    return [["tokenizer.ggml.model", "none"]];
  }
  const settings = (await readJsonObject(platform.joinPath(folder, "tokenizer_config.json"))) ?? {};
  const map = (await readJsonObject(platform.joinPath(folder, "special_tokens_map.json"))) ?? {};
  const tokenizerConfig = { ...map, ...settings };
  const tokenizer = createTokenizer(json, tokenizerConfig, path);
  const { eosTokenIds } = config;
  const own = tokenizer.eosTokenId;
  const ends =
    own === undefined || (eosTokenIds.length > 0 && !eosTokenIds.includes(own)) ? eosTokenIds : [own, ...eosTokenIds];
  const special = {
    bos: tokenizer.bosTokenId ?? config.bosTokenId,
    ends: [...new Set(ends)],
    addsBos: tokenizer.addsBos,
  };
  const { metadata, warnings } = ggufVocabulary(json, tokenizerConfig, config.vocabSize, special, path);
  for (const sentence of warnings) onWarning(sentence);
  return [...metadata, ...(await templateMetadata(folder))];
}

async function templateMetadata(folder: string): Promise<[string, GgufValue][]> {
  const templates = await chatTemplateTexts(folder);
  if (templates === undefined) return [];
  const entries: [string, GgufValue][] = [];
  const others = [...templates].filter(([name]) => name !== "default");
  const main = templates.get("default");
  if (main !== undefined) entries.push(["tokenizer.chat_template", main]);
  if (others.length > 0) entries.push(["tokenizer.chat_templates", others.map(([name]) => name)]);
  for (const [name, text] of others) entries.push([`tokenizer.chat_template.${name}`, text]);
  return entries;
}

function typeOf(name: string, shape: readonly number[], type: GgufType, head: string): GgufType {
  if (shape.length < 2 || name === "position_embd.weight") return "f32";
  const wanted = type === "q4_0" && name === head ? "q8_0" : type;
  return rowsFit(wanted, shape.at(-1) ?? 0) ? wanted : "f16";
}

function reportOf(tensors: readonly GgufTensor[]): GgufReport {
  const types: Partial<Record<GgufType, number>> = {};
  for (const { type } of tensors) types[type] = (types[type] ?? 0) + 1;
  return { types };
}
