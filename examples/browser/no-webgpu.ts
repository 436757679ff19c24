/** Why a page cannot compute, in a sentence that says what to do. Whether there is an adapter only asking shows. */

/** @returns undefined where WebGPU is there */
export function noWebGpuSentence(navigator: object, isSecure: boolean): string | undefined {
  if ("gpu" in navigator && navigator.gpu) return undefined;
  return isSecure
    ? "This browser has no WebGPU: use a current Chrome, Edge, Safari or Firefox, and see that WebGPU is not turned off."
    : "This page was not served over https or from localhost, and browsers give WebGPU to secure pages alone.";
}
