export const chromiumFolder: string;
export function unpackChromium(): Promise<string>;
