/** The public surface of kto-webgpu: re-exports only. What is not here may change without notice. */

export { Device, type DeviceOptions, type MemoryCategory } from "./engine/gpu/device.ts";
export {
  type DatasetOptions,
  type DownloadProgress,
  type HubOptions,
  type HubPatience,
  resolveDatasetFiles,
  resolveModelFolder,
} from "./engine/hub/resolve.ts";
export type { ModelConfig } from "./engine/model/config/config.ts";
export {
  type GeneratedSequence,
  type GenerateOptions,
  Generator,
  type GeneratorOptions,
} from "./engine/model/generate/generate.ts";
export type { SamplingOptions } from "./engine/model/generate/sample.ts";
export { LoraAdapter, type LoraOptions } from "./engine/model/lora.ts";
export { type LoadOptions, Model, type SaveOptions } from "./engine/model/model.ts";
export { loadAdapter, type MergeOptions, mergeAdapter, saveAdapter } from "./engine/model/peft.ts";
export type { RowSequence } from "./engine/model/rows.ts";
export { type ChatTemplate, loadChatTemplate, type RenderOptions } from "./engine/text/chat-template.ts";
export { TextStream } from "./engine/text/text-stream.ts";
export { decodeContinuation, loadTokenizer, type Tokenizer } from "./engine/text/tokenizer.ts";
export {
  AdapterError,
  ConfigError,
  DatasetError,
  DeviceLostError,
  FileError,
  JudgeError,
  KtoError,
  ModelFormatError,
  NumericError,
} from "./errors.ts";
export type { ColumnMapping } from "./kto/data/columns.ts";
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
export { Evaluator, type EvaluatorOptions } from "./kto/evaluation/evaluator.ts";
export type { Evaluation, OwnMetrics } from "./kto/evaluation/run-evaluation.ts";
export {
  checkGradients,
  type GradientCheck,
  type GradientCheckOptions,
  type GradientComparison,
  type GradientTensor,
} from "./kto/gradcheck.ts";
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
export type { BatchExample } from "./kto/method/batch.ts";
export { completionLogProbs } from "./kto/method/log-probs.ts";
export type { Metrics } from "./kto/method/metrics.ts";
export type { ObjectiveOptions } from "./kto/method/objective.ts";
export { configAdvice, type RunFacts } from "./kto/options/advice.ts";
export type { TrainerOptions } from "./kto/options/kto.ts";
export type { SftTrainerOptions } from "./kto/options/sft.ts";
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
export type { SavedCheckpoint, TrainerCallbacks, TrainingStep } from "./kto/run/callbacks.ts";
export type { Run } from "./kto/run/run.ts";
export type { RunTimes } from "./kto/run/timing.ts";
export { SftTrainer, type SftTrainerInputs } from "./kto/sft-trainer.ts";
export { KtoTrainer, type TrainerInputs } from "./kto/trainer.ts";
