/** The list of runs, in which those are chosen that the page shows. */
import { useState } from "preact/hooks";
import type { RunSummary } from "../protocol.ts";
import { colorOf } from "./shown-run.ts";

/** From so many runs on they can be searched by their names. */
const MANY = 12;

interface RunListProps {
  /** undefined before the server has told. */
  readonly runs: readonly RunSummary[] | undefined;
  /** The ids of the runs that are shown. */
  readonly ids: readonly string[];
  readonly onToggle: (id: string) => void;
}

export function RunList({ runs = [], ids, onToggle }: RunListProps) {
  const [searched, setSearched] = useState("");
  const isMany = runs.length > MANY;
  // Those that are shown stay in the list, so that they can be taken away.
  const found = runs.filter(
    ({ id, name }) => !isMany || ids.includes(id) || name.toLowerCase().includes(searched.trim().toLowerCase()),
  );
  return (
    <nav aria-label="Runs">
      <h2>Runs{isMany ? ` (${found.length} of ${runs.length})` : ""}</h2>
      {runs.length === 0 ? <p>No run has written its metrics.jsonl here yet.</p> : null}
      {isMany ? (
        <label class="search">
          Names with{" "}
          <input type="search" value={searched} onInput={({ currentTarget }) => setSearched(currentTarget.value)} />
        </label>
      ) : null}
      <ul class={isMany ? "many" : ""}>
        {found.map((run) => (
          <li key={run.id}>
            <label>
              <input type="checkbox" checked={ids.includes(run.id)} onChange={() => onToggle(run.id)} />
              <span class={`swatch color-${colorOf(run.id)} ${ids.includes(run.id) ? "" : "off"}`} />
              <span class="name">{run.name}</span> <span class="state">{stateOf(run)}</span>
            </label>
          </li>
        ))}
      </ul>
    </nav>
  );
}

function stateOf({ running, step, warnings, fault }: RunSummary): string {
  const told = warnings ? `, ${warnings === 1 ? "1 warning" : `${warnings} warnings`}` : "";
  return `${running ? "running" : "ended"}, update ${step}${told}${fault ? ", not all of it can be read" : ""}`;
}
