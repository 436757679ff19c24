/** The whole page: what goes on, stories with thumbs, training, what it changed, files in and out. */
import { useEffect, useState } from "preact/hooks";
import { Changes } from "./changes.tsx";
import { Downloads } from "./downloads.tsx";
import { type Engine, MODEL_NAME, type OwnModel, useEngine } from "./engine.ts";
import { OwnModelForm } from "./own-model.tsx";
import { stepsDone } from "./state.ts";
import { Stories } from "./stories.tsx";
import { TrainingForm } from "./training-form.tsx";
import { useHiddenTab } from "./visibility.ts";

export function App() {
  const engine = useEngine();
  const { state } = engine;
  const { opened, task } = state;
  const [own, setOwn] = useState<OwnModel>();
  const hidden = useHiddenTab(state);
  // What a model says before it is trained is there to be compared with from the beginning.
  useEffect(() => {
    if (opened && task === undefined && state.watched === undefined) engine.tell(FIRST_STORIES, FIRST_TOKENS);
  }, [opened, task]);
  const openOwn = (model: OwnModel) => {
    setOwn(model);
    engine.openOwn(model);
  };
  const isOwn = opened?.feedback !== undefined;
  return (
    <>
      <header>
        <h1>KTO in this page</h1>
        <p class="lead">
          A small model tells stories, you give thumbs, and KTO trains it on them: on your GPU, in this tab. Nothing
          leaves your machine.
        </p>
      </header>
      <main>
        <State engine={engine} again={() => reopen(engine, own)} />
        {hidden === undefined ? null : <p class="verdict">{hidden}</p>}
        {state.warnings.map((sentence, at) => (
          <p key={at} class="verdict">
            {sentence}
          </p>
        ))}
        {isOwn ? (
          <section class="panel" aria-labelledby="rows">
            <h2 id="rows">Your feedback</h2>
            <p>
              {state.name} with a LoRA adapter of {opened.adapterParameters?.toLocaleString("en-US")} parameters, and{" "}
              {opened.feedback?.up} thumbs up, {opened.feedback?.down} down.
            </p>
            <button type="button" onClick={() => engine.open()}>
              Back to {MODEL_NAME}
            </button>
          </section>
        ) : (
          <Stories engine={engine} />
        )}
        <TrainingForm engine={engine} />
        <Changes state={state} />
        <Downloads engine={engine} own={own} onOwn={openOwn} />
        <OwnModelForm isBusy={task !== undefined} onOpen={openOwn} />
      </main>
    </>
  );
}

const FIRST_STORIES = 6;
const FIRST_TOKENS = 48;

/** Opens what was open with what the last training made of it. */
function reopen({ state, open, openOwn }: Engine, own: OwnModel | undefined): void {
  const content = (wanted: string) => state.files.find(([name]) => name === wanted)?.[1];
  if (own && state.name === own.name)
    openOwn({ ...own, ...(content("adapter_config.json") ? { adapter: state.files } : {}) });
  else open(content("model.safetensors"));
}

function State({ engine: { state }, again }: { readonly engine: Engine; readonly again: () => void }) {
  const { opened, problem, progress } = state;
  return (
    <section class="state" aria-label="State">
      <p role="status">
        {opened
          ? `${state.name}: ${opened.parameters.toLocaleString("en-US")} parameters, ${stepsDone(state)} updates, on ${opened.adapter}.`
          : ""}{" "}
        {sentenceOf(state)}
      </p>
      {opened?.isSoftware ? (
        <p class="faint">There is no GPU: this adapter computes on the processor, slowly.</p>
      ) : null}
      {progress ? (
        <progress value={progress.step} max={progress.totalSteps} aria-label="Updates of this training" />
      ) : null}
      {problem ? (
        <div role="alert" class="verdict no">
          <p>{problem.isBug ? `Something failed that should not: ${problem.sentence}` : problem.sentence}</p>
          {problem.isLost || !opened ? (
            <p>
              <button type="button" onClick={again}>
                Open it again
              </button>{" "}
              {state.files.length > 0 ? "It goes on from the end of the last training." : "Thumbs are kept."}
            </p>
          ) : null}
        </div>
      ) : null}
    </section>
  );
}

/** What goes on now. */
function sentenceOf({ task, work, progress, problem }: Engine["state"]): string {
  if (task === undefined) return problem ? "" : "Ready.";
  const of = work?.total ? `, ${work.done ?? 0} of ${work.total}` : "";
  if (work) return `${(work.work[0] ?? "").toUpperCase()}${work.work.slice(1)}${of} …`;
  if (progress) return `Training: update ${progress.step} of ${progress.totalSteps} …`;
  if (task === "tell") return "Telling stories …";
  return task === "train" ? "Training …" : "Starting …";
}
