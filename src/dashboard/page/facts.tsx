/** What runs were started with, and in what they differ. */

import { Fragment } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { RunFacts } from "../protocol.ts";
import { useAnswer } from "./client.ts";
import type { ShownRun } from "./shown-run.ts";

interface Column {
  readonly name: string;
  readonly facts: RunFacts | undefined;
}

export function Configuration({ shown }: { readonly shown: readonly ShownRun[] }) {
  const [known, setKnown] = useState<ReadonlyMap<string, RunFacts | undefined>>(new Map());
  const columns = shown.map(({ run }): Column => ({ name: run.name, facts: known.get(run.id) }));
  const take = (id: string, facts: RunFacts | undefined) => setKnown((before) => new Map(before).set(id, facts));
  const present = columns.flatMap(({ facts }) => facts ?? []);
  const silent = columns.filter(({ facts }) => facts === undefined);
  const values = columns.map(({ facts }) => valuesOf(facts));
  const names = [...new Set(values.flatMap((one) => [...one.keys()]))];
  const differ = names.filter((name) => new Set(values.map((one) => one.get(name))).size > 1);
  return (
    <section class="panel" aria-label="Configuration">
      <h2>Configuration</h2>
      {shown.map((one) => (
        <Asked key={one.run.id} shown={one} onFacts={take} />
      ))}
      {silent.length > 0 ? (
        <p class="faint">
          {silent.map(({ name }) => name).join(", ")}: no run.json says what{" "}
          {silent.length > 1 ? "they were" : "it was"} started with.
        </p>
      ) : null}
      {present.length > 1 ? (
        <>
          <h3>What differs</h3>
          {differ.length === 0 ? (
            <p>Nothing.</p>
          ) : (
            <Values title="What differs" {...{ names: differ, columns, values }} />
          )}
        </>
      ) : null}
      {present.length > 0 ? (
        <details>
          <summary>All of it</summary>
          <Values title="The whole configuration" {...{ names, columns, values }} />
        </details>
      ) : null}
    </section>
  );
}

/** Asks for a run's facts; shows nothing itself. */
function Asked({
  shown: { run },
  onFacts,
}: {
  readonly shown: ShownRun;
  readonly onFacts: (id: string, facts: RunFacts | undefined) => void;
}) {
  const answer = useAnswer(run, "facts");
  useEffect(() => {
    if (answer !== undefined) onFacts(run.id, answer.facts);
  }, [run.id, answer]);
  return null;
}

interface ValuesProps {
  readonly title: string;
  readonly names: readonly string[];
  readonly columns: readonly Column[];
  readonly values: readonly ReadonlyMap<string, string>[];
}

function Values({ title, names, columns, values }: ValuesProps) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by the keyboard
    <section class="scroll" tabIndex={0} aria-label={title}>
      <table class="values" aria-label={title}>
        <thead>
          <tr>
            <th scope="col">option</th>
            {columns.map(({ name }, at) => (
              <th key={at} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {names.map((name) => (
            <tr key={name}>
              <th scope="row">{breakable(name)}</th>
              {values.map((one, at) => (
                <td key={at}>{one.get(name) ?? "–"}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** A name that may go on in the next line behind each of its parts, and nowhere else. */
function breakable(name: string) {
  return name.split(/(?<=_)/).map((part, at) => (
    <Fragment key={at}>
      {part}
      <wbr />
    </Fragment>
  ));
}

/** Facts and options by name, as text. */
function valuesOf(facts: RunFacts | undefined): ReadonlyMap<string, string> {
  if (facts === undefined) return new Map();
  const { options, ...rest } = facts;
  const all = [...Object.entries(rest), ...Object.entries(options).sort(([a], [b]) => a.localeCompare(b))];
  return new Map(all.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]));
}
