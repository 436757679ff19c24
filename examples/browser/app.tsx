/** The whole page: what goes on, stories with thumbs, training, what it changed, files in and out. */
import { useEffect, useState } from "preact/hooks";
import { Changes } from "./changes.tsx";
import { Downloads } from "./downloads.tsx";
import { type Engine, MODEL_NAME, type OwnModel, useEngine } from "./engine.ts";
import { OwnModelForm } from "./own-model.tsx";
import { isFree, stepsDone, thumbsOf } from "./state.ts";
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
    if (isFree(state) && state.watched === undefined) engine.tell(FIRST_STORIES, FIRST_TOKENS);
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
            {sentence.slice(0, 1).toUpperCase()}
            {sentence.slice(1)}
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

/** Opens what was open with what the last training made of it, in a worker of its own. */
function reopen({ state, open, openOwn }: Engine, own: OwnModel | undefined): void {
  const weights = state.files.find(([name]) => name === "model.safetensors")?.[1];
  if (own === undefined || state.name !== own.name) {
    open(weights);
    return;
  }
  // Not with an adapter that was given, which may be what failed.
  const { name, model, feedback, rank } = own;
  openOwn({ name, model, feedback, rank, ...(state.files.length > 0 ? { adapter: state.files } : {}) });
}

function State({ engine: { state }, again }: { readonly engine: Engine; readonly again: () => void }) {
  const { opened, problem, progress } = state;
  return (
    <section class="state" aria-label="State">
      <p role="status">
        {opened
          ? `${state.name}: ${opened.parameters.toLocaleString("en-US")} parameters, ${updatesDone(state)}, on ${opened.adapter}.`
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
              {state.files.length > 0
                ? "It goes on from the end of the last training."
                : thumbsOf(state).length > 0
                  ? "Thumbs are kept."
                  : ""}
            </p>
          ) : null}
        </div>
      ) : null}
    </section>
  );
}

function updatesDone(state: Engine["state"]): string {
  const steps = stepsDone(state);
  return steps === 1 ? "1 update" : `${steps} updates`;
}

/** What goes on now. */
function sentenceOf(state: Engine["state"]): string {
  const { task, work, progress, problem } = state;
  if (isFree(state) && state.watched === undefined) return "Telling stories …";
  if (task === undefined) return problem ? "" : "Ready.";
  const of = work?.total ? `, ${work.done ?? 0} of ${work.total}` : "";
  if (work) return `${(work.work[0] ?? "").toUpperCase()}${work.work.slice(1)}${of} …`;
  if (progress) return `Training: update ${progress.step} of ${progress.totalSteps} …`;
  if (task === "tell") return "Telling stories …";
  return task === "train" ? "Training …" : "Starting …";
}
