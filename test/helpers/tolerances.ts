/**
 * What whole models may be off by from float64 PyTorch autograd: the numbers of docs/design/method.md, "Numbers that
 * decide". Kernels have bounds of their own (`compare.ts`).
 */

/** Of a completion's log-probability, absolute. */
export const LOG_PROB = 1e-4;
/**
 * Of the log-probability of a completion of so many tokens, absolute, where activations or the operands of products are
 * rounded to f16. It is a sum over tokens, each off on its own, so the sum is off as a random walk is.
 */
export const roundedLogProb = (tokens: number) => 3e-2 * Math.sqrt(Math.max(1, tokens / 16));
/** Of a loss and, relative in norm, of a gradient tensor where activations are rounded to f16. */
export const ROUNDED_LOSS = 1e-3;
export const ROUNDED_GRADIENT = 1e-2;
/** Of a batch's loss, absolute. */
export const LOSS = 1e-5;
/** Of each tensor's gradient, relative in norm. */
export const GRADIENT = 1e-3;
/** Of the losses of five AdamW updates, absolute, and of their gradients' norms, relative. */
export const STEP_LOSS = 1e-3;

/**
 * Bounds of a fixture beside those above: of log-probs and z0, which is a mean of them, and whether z0 and norms of the
 * updates after the first are compared. Qwen3.5's first tokens have small results whose norm makes gradients steep:
 * `test/kto/steep-updates.test.ts` shows in float64 what one rounding of the weights does. Its losses are compared all
 * the same; with activations in f16 they alone.
 */
export const boundsOf = (name: string) =>
  name === "qwen3_5" ? { logProb: 5e-4, z0: 5e-4, isSteep: true } : { logProb: LOG_PROB, z0: LOSS, isSteep: false };
/**
 * Of how far a tensor moves in one AdamW update of the device's own gradients and moments, relative in norm: f32 rounds
 * the parameter itself, of which an update may be a thousandth.
 */
export const STEP_MOVED = 1e-3;
/** Of how far weights move in five updates, relative in norm, where moments are kept in 8 bits. */
export const EIGHT_BIT = 0.05;
