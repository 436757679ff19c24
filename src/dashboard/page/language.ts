/**
 * Gives the page a language that numbers can be written in. Some systems have their browser name one that no `Intl`
 * takes, such as "en-US@posix", and uPlot, which asks when it is loaded, would throw: so this is imported before it.
 */

if (!isTaken(navigator.language)) {
  const language = navigator.languages.find(isTaken) ?? "en-US";
  Object.defineProperty(navigator, "language", { value: language, configurable: true });
}

function isTaken(language: string): boolean {
  try {
    return Intl.getCanonicalLocales(language).length > 0;
  } catch {
    return false;
  }
}

export {};
