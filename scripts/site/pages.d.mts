/** One part of the site's menu. */
export interface Group {
  readonly text: string;
  readonly items: readonly (readonly [title: string, file: string])[];
}

export const groups: readonly Group[];
export const coming: readonly string[];
export function addressOf(file: string): string;
