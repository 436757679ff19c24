export function staged(text: string, path: string, repository: string | undefined): string;
