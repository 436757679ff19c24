/** What a tab that is hidden does to a training: the title tells how far it is, and afterwards a sentence what was done. */
import { useEffect, useRef, useState } from "preact/hooks";
import { type State, stepsDone } from "./state.ts";

const TITLE = "KTO in this page";

/** @returns a sentence on the time that the tab was hidden during a training; undefined where it was not */
export function useHiddenTab(state: State): string | undefined {
  const [sentence, setSentence] = useState<string>();
  const now = useRef(state);
  now.current = state;
  const since = useRef<{ readonly at: number; readonly step: number }>();
  const { progress } = state;
  useEffect(() => {
    document.title = progress ? `${progress.step} of ${progress.totalSteps} - ${TITLE}` : TITLE;
  }, [progress]);
  useEffect(() => {
    const changed = () => {
      if (document.visibilityState === "hidden") {
        const isTraining = now.current.task === "train";
        since.current = isTraining ? { at: Date.now(), step: stepsDone(now.current) } : undefined;
        return;
      }
      const hidden = since.current;
      if (hidden === undefined) return;
      since.current = undefined;
      const [seconds, updates] = [Math.round((Date.now() - hidden.at) / 1000), stepsDone(now.current) - hidden.step];
      setSentence(
        `This tab was hidden for ${seconds} s, in which ${updates} ${updates === 1 ? "update was" : "updates were"} made. The training goes on in a hidden tab as far as the browser lets it; phones mostly hold it back.`,
      );
    };
    document.addEventListener("visibilitychange", changed);
    return () => document.removeEventListener("visibilitychange", changed);
  }, []);
  return sentence;
}
