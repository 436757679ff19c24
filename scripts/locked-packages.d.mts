/** See locked-packages.mjs. */
export function packagesOf(
  locked: Readonly<Record<string, unknown>>,
  folders: readonly string[],
  options?: { readonly dev?: boolean },
): string[];
