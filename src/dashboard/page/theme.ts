/** The colours of the page, which are the style sheet's, for what is drawn on a canvas. */
import { useEffect, useState } from "preact/hooks";

const dark = () => window.matchMedia("(prefers-color-scheme: dark)");

/** "dark" or "light", as the system is now. */
export function useTheme(): "dark" | "light" {
  const [isDark, setIsDark] = useState(dark().matches);
  useEffect(() => {
    const list = dark();
    const changed = () => setIsDark(list.matches);
    list.addEventListener("change", changed);
    return () => list.removeEventListener("change", changed);
  }, []);
  return isDark ? "dark" : "light";
}

export function colors(): { readonly text: string; readonly grid: string; readonly series: readonly string[] } {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(name).trim();
  return { text: of("--text"), grid: of("--grid"), series: [0, 1, 2, 3, 4, 5].map((at) => of(`--series-${at}`)) };
}
