/** A visitor's own model and feedback: dropped on the page or chosen, then trained by LoRA. Nothing is uploaded. */
import { useState } from "preact/hooks";
import type { GivenFile } from "../../src/browser.ts";
import { filesOfDrop, filesOfFolder } from "./dropped.ts";
import type { OwnModel } from "./engine.ts";
import { NumberField } from "./number-field.tsx";

interface OwnModelFormProps {
  readonly isBusy: boolean;
  readonly onOpen: (own: OwnModel) => void;
}

interface Chosen {
  readonly name: string;
  readonly model: readonly GivenFile[];
}

const FEEDBACK = /\.(jsonl|json|csv|parquet)$/;

export function OwnModelForm({ isBusy, onOpen }: OwnModelFormProps) {
  const [model, setModel] = useState<Chosen>();
  const [feedback, setFeedback] = useState<GivenFile>();
  const [rank, setRank] = useState(8);
  const [isOver, setIsOver] = useState(false);
  const [refusal, setRefusal] = useState("");
  const take = (folders: readonly Chosen[], files: readonly GivenFile[]) => {
    const folder = folders.find(({ model: inside }) => inside.some(([path]) => path === "config.json"));
    const rows = files.find(([path]) => FEEDBACK.test(path));
    if (folder) setModel(folder);
    if (rows) setFeedback(rows);
    setRefusal(
      folder || rows
        ? ""
        : "Neither a folder with a config.json nor a jsonl, json, csv or parquet file was among that.",
    );
  };
  const onDrop = async (event: DragEvent) => {
    event.preventDefault();
    setIsOver(false);
    if (event.dataTransfer === null) return;
    const { folders, files } = await filesOfDrop(event.dataTransfer);
    take(folders, files);
  };
  return (
    <section
      class={isOver ? "panel drop over" : "panel drop"}
      aria-labelledby="own"
      onDragOver={(event) => {
        event.preventDefault();
        setIsOver(true);
      }}
      onDragLeave={() => setIsOver(false)}
      onDrop={onDrop}
    >
      <h2 id="own">Your own model</h2>
      <p>
        Drop a model folder (config.json, tokenizer.json, safetensors) and a feedback file here, or choose them. A LoRA
        adapter is trained over the model.
      </p>
      <div class="form">
        <label class="field">
          Model folder{model ? `: ${model.name}` : ""}
          <input
            type="file"
            {...{ webkitdirectory: true }}
            onChange={({ currentTarget }) => take(filesOfFolder(currentTarget.files), [])}
          />
        </label>
        <label class="field">
          Feedback{feedback ? `: ${feedback[0]}` : ""}
          <input
            type="file"
            accept=".jsonl,.json,.csv,.parquet"
            onChange={({ currentTarget }) => {
              take(
                [],
                [...(currentTarget.files ?? [])].map((file): GivenFile => [file.name, file]),
              );
            }}
          />
        </label>
        <NumberField label="Rank of the adapter" value={rank} min={1} max={256} onValue={setRank} />
        <button
          type="button"
          disabled={isBusy || !model || !feedback}
          onClick={() => model && feedback && onOpen({ ...model, feedback, rank })}
        >
          Open
        </button>
      </div>
      {refusal === "" ? null : <p role="alert">{refusal}</p>}
    </section>
  );
}
