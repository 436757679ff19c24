/**
 * What whole models may be off by from float64 PyTorch autograd: the numbers of docs/design/method.md, "Numbers that
 * decide". Kernels have bounds of their own (`compare.ts`).
 */

/** Of a completion's log-probability, absolute. */
export const LOG_PROB = 1e-4;
/** Of a batch's loss, absolute. */
export const LOSS = 1e-5;
/** Of each tensor's gradient, relative in norm. */
export const GRADIENT = 1e-3;
/** Of the losses of five AdamW updates, absolute, and of their gradients' norms, relative. */
export const STEP_LOSS = 1e-3;
