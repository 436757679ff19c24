/**
 * The public surface of kto-webgpu: re-exports only, in the order in which a program meets them. What is not here may
 * change without notice.
 */

// Device: the GPU, and the errors that everything below throws.

export { Device, type DeviceOptions, type MemoryCategory } from "./engine/gpu/device.ts";
export {
  AdapterError,
  ConfigError,
  DatasetError,
  DeviceLostError,
  FileError,
  InterruptedError,
  JudgeError,
  KtoError,
  ModelFormatError,
  NumericError,
  RankError,
  ResourceError,
} from "./errors.ts";

// Model: from a folder or the hub onto the device, with or without an adapter, and back into files.

export {
  type DownloadProgress,
  type HubOptions,
  type HubPatience,
  resolveModelFolder,
} from "./engine/hub/resolve.ts";
export type { ModelConfig } from "./engine/model/config/config.ts";
export { LoraAdapter } from "./engine/model/lora.ts";
export type { LoraOptions } from "./engine/model/lora-modules.ts";
export { type MergeOptions, mergeAdapter } from "./engine/model/merge.ts";
export { type LoadOptions, Model, type SaveOptions } from "./engine/model/model.ts";
export { loadAdapter, saveAdapter } from "./engine/model/peft.ts";
export type { Quantization } from "./engine/model/weights/quantization.ts";

// Data: feedback read, split, summed up and turned into token ids.

export { type DatasetOptions, resolveDatasetFiles } from "./engine/hub/resolve.ts";
export { type ChatTemplate, loadChatTemplate, type RenderOptions } from "./engine/text/chat-template.ts";
export { decodeContinuation, loadTokenizer, type Tokenizer } from "./engine/text/tokenizer.ts";
export type { ColumnMapping, LabelMapping } from "./kto/data/columns.ts";
export type { ExportReport } from "./kto/data/exports/report.ts";
export { feedbackRows, type ReadOptions, readFeedback } from "./kto/data/read.ts";
export { parseSplit, type Slice } from "./kto/data/slice.ts";
export { type FeedbackSummary, summarizeRows } from "./kto/data/summary.ts";
export { type TokenizedRows, type TokenizeOptions, tokenizeRows } from "./kto/data/tokenize.ts";
export type {
  ChatMessage,
  ChatRow,
  DatasetReport,
  Example,
  FeedbackRow,
  FeedbackRows,
  RowSource,
  TextRow,
  TokenRow,
} from "./kto/data/types.ts";
export { holdOut } from "./kto/data/validation-split.ts";
export { autoWeights, type ClassWeights, weightAdvice } from "./kto/data/weights.ts";

// Training: the two trainers, their options, and the check of their gradients.

export type { Communicator } from "./engine/ranks/communicator.ts";
export type { ScheduleParameters, ScheduleType } from "./engine/schedule.ts";
export {
  checkGradients,
  type GradientCheck,
  type GradientCheckOptions,
  type GradientComparison,
  type GradientTensor,
} from "./kto/gradcheck.ts";
export type { BatchExample } from "./kto/method/batch.ts";
export type { Metrics } from "./kto/method/metrics.ts";
export type { ObjectiveOptions } from "./kto/method/objective.ts";
export { type AdviceFacts, configAdvice } from "./kto/options/advice.ts";
export type { TrainerOptions } from "./kto/options/kto.ts";
export type { RunOptions } from "./kto/options/run.ts";
export type { SftTrainerOptions } from "./kto/options/sft.ts";
export type { SavedCheckpoint, TrainerCallbacks, TrainingStep } from "./kto/run/callbacks.ts";
export type { Run } from "./kto/run/run.ts";
export type { RunTimes } from "./kto/run/timing.ts";
export { type FollowedRun, Tracking, type TrackingOptions } from "./kto/run/tracking.ts";
export { SftTrainer, type SftTrainerInputs } from "./kto/sft-trainer.ts";
export { KtoTrainer, type TrainerInputs } from "./kto/trainer.ts";

// Evaluation: log-probs, metrics of held-out rows, judges, intervals and plots.

export type { RowSequence } from "./engine/model/rows.ts";
export { Evaluator, type EvaluatorOptions } from "./kto/evaluation/evaluator.ts";
export type { Evaluation, OwnMetrics } from "./kto/evaluation/run-evaluation.ts";
export { ChatJudge, type ChatJudgeOptions, type Transcript } from "./kto/judge/chat-judge.ts";
export { type AnswerPair, type JudgedWinRate, judgePairs } from "./kto/judge/compare.ts";
export {
  functionJudge,
  type Judge,
  type JudgeFunction,
  type JudgeWait,
  type Question,
  type Verdict,
} from "./kto/judge/judge.ts";
export { completionLogProbs } from "./kto/method/log-probs.ts";
export {
  disjoint,
  type Mean,
  meanInterval,
  type Share,
  type WinRate,
  wilsonInterval,
  winRate,
} from "./kto/report/statistics.ts";
export { type Figure, linePlots, type Panel, type Series } from "./kto/report/svg.ts";

// Generation: continuations of prompts, as they come.

export {
  type GeneratedSequence,
  type GenerateOptions,
  Generator,
  type GeneratorOptions,
} from "./engine/model/generate/generate.ts";
export type { SamplingOptions } from "./engine/model/generate/sample.ts";
export { TextStream } from "./engine/text/text-stream.ts";

// Results: files for llama.cpp and Ollama, model cards, uploads to the hub.

export type { GgufType } from "./engine/files/gguf.ts";
export {
  exportAdapterGguf,
  exportGguf,
  type GgufOptions,
  type GgufReport,
} from "./engine/model/export/export-gguf.ts";
export { type CardFacts, type NamedSource, writeModelCard } from "./kto/report/model-card.ts";
export { Publishing, type PublishingOptions } from "./kto/run/publishing.ts";
