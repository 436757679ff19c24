/** What the visitor takes along, and the way back: files of the trained model, thumbs, log. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { GivenFile } from "../../src/browser.ts";
import type { Engine, OwnModel } from "./engine.ts";
import { type State, thumbsOf } from "./state.ts";

interface DownloadsProps {
  readonly engine: Engine;
  readonly own: OwnModel | undefined;
  readonly onOwn: (own: OwnModel) => void;
}

export function Downloads({ engine, own, onOwn }: DownloadsProps) {
  const { state, open } = engine;
  const { files } = state;
  const more = useMemo(() => ownFiles(state), [state.stories, state.series]);
  const isOwn = state.opened?.feedback !== undefined;
  const isBusy = state.task !== undefined;
  const input = useRef<HTMLInputElement>(null);
  const [refusal, setRefusal] = useState("");
  const load = (chosen: FileList | null) => {
    const given = [...(chosen ?? [])].map((file): GivenFile => [file.name, file]);
    if (input.current) input.current.value = "";
    const has = (name: string) => given.find(([path]) => path === name)?.[1];
    const weights = given.find(([path]) => path.endsWith(".safetensors"))?.[1];
    const isAdapter = has("adapter_config.json") !== undefined && has("adapter_model.safetensors") !== undefined;
    setRefusal("");
    if (given.length === 0) return;
    if (isOwn && own && isAdapter) onOwn({ ...own, adapter: given });
    else if (!isOwn && weights) open(weights);
    else {
      setRefusal(
        isOwn
          ? "An adapter is two files: choose adapter_config.json and adapter_model.safetensors together."
          : "Weights of the model are one .safetensors file.",
      );
    }
  };
  return (
    <section class="panel" aria-labelledby="files">
      <h2 id="files">Files</h2>
      {files.length > 0 ? (
        <>
          <p>
            {isOwn
              ? "The adapter, as PEFT reads it:"
              : "The trained model as a Hugging Face folder; model.safetensors are the weights:"}
          </p>
          <Links files={files} />
        </>
      ) : (
        <p>After a training, what was trained can be saved here.</p>
      )}
      {more.length > 0 ? <Links files={more} /> : null}
      <label class="field">
        {isOwn ? "Load an adapter again (its two files)" : "Load a model.safetensors again"}
        <input
          ref={input}
          type="file"
          multiple={isOwn}
          accept=".safetensors,.json"
          disabled={isBusy}
          onChange={({ currentTarget }) => load(currentTarget.files)}
        />
      </label>
      {refusal === "" ? null : <p role="alert">{refusal}</p>}
    </section>
  );
}

/** The thumbs, in the tokens that the model said, and the log: for `kto train`, and to compare. */
function ownFiles(state: State): GivenFile[] {
  const thumbs = thumbsOf(state).map(({ promptIds, completionIds, label }) => ({
    ...{ prompt_ids: promptIds, completion_ids: completionIds, label },
  }));
  const steps = [...new Set(Object.values(state.series).flatMap((series) => series.steps))].sort((a, b) => a - b);
  const lines = steps.map((step) => {
    const line: Record<string, number> = { step };
    for (const [name, { steps: all, values }] of Object.entries(state.series)) {
      const value = values[all.indexOf(step)];
      if (value !== undefined) line[name] = value;
    }
    return line;
  });
  return [
    ...(thumbs.length > 0 ? [jsonlFile("thumbs.jsonl", thumbs)] : []),
    ...(lines.length > 0 ? [jsonlFile("metrics.jsonl", lines)] : []),
  ];
}

function jsonlFile(name: string, rows: readonly object[]): GivenFile {
  return [name, new Blob([rows.map((row) => `${JSON.stringify(row)}\n`).join("")])];
}

function Links({ files }: { readonly files: readonly GivenFile[] }) {
  const [links, setLinks] = useState<readonly { readonly name: string; readonly size: number; readonly url: string }[]>(
    [],
  );
  useEffect(() => {
    const made = files.map(([name, content]) => ({ name, size: content.size, url: URL.createObjectURL(content) }));
    setLinks(made);
    return () => {
      for (const { url } of made) URL.revokeObjectURL(url);
    };
  }, [files]);
  return (
    <ul class="links">
      {links.map(({ name, size, url }) => (
        <li key={name}>
          <a href={url} download={name}>
            {name}
          </a>{" "}
          <span class="faint">{inWords(size)}</span>
        </li>
      ))}
    </ul>
  );
}

function inWords(bytes: number): string {
  if (bytes < 1e3) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
