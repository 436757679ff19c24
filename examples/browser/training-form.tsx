/** What a training is asked for, its start and its end. */
import { useState } from "preact/hooks";
import type { Engine } from "./engine.ts";
import { NumberField } from "./number-field.tsx";
import type { TrainingChoices } from "./protocol.ts";
import { isFree, rowsOf, type State } from "./state.ts";

const DEFAULTS: TrainingChoices = {
  ...{ max_steps: 20, per_device_train_batch_size: 16, learning_rate: 5e-4, beta: 0.1 },
};

export function TrainingForm({ engine }: { readonly engine: Engine }) {
  const { state, train, stop } = engine;
  const [choices, setChoices] = useState(DEFAULTS);
  const choose = (changed: Partial<TrainingChoices>) => setChoices({ ...choices, ...changed });
  const missing = missingFor(state);
  return (
    <section class="panel" aria-labelledby="training">
      <h2 id="training">Training</h2>
      <div class="form">
        <NumberField
          label="Updates"
          value={choices.max_steps}
          min={1}
          max={1000}
          onValue={(max_steps) => choose({ max_steps })}
        />
        <NumberField
          label="Rows of an update"
          value={choices.per_device_train_batch_size}
          min={2}
          max={64}
          onValue={(per_device_train_batch_size) => choose({ per_device_train_batch_size })}
        />
        <NumberField
          label="Learning rate"
          value={choices.learning_rate}
          min={1e-7}
          max={1e-2}
          step="any"
          onValue={(learning_rate) => choose({ learning_rate })}
        />
        <NumberField
          label="β"
          value={choices.beta}
          min={0.001}
          max={10}
          step="any"
          onValue={(beta) => choose({ beta })}
        />
        {state.task === "train" ? (
          <button type="button" class="main" onClick={stop}>
            Stop
          </button>
        ) : (
          <button
            type="button"
            class="main"
            disabled={!isFree(state) || missing !== undefined}
            aria-describedby="missing"
            onClick={() => train(choices)}
          >
            Train
          </button>
        )}
      </div>
      <p id="missing" class="faint">
        {missing ?? "A training goes on from the one before; the reference stays the model as it was."}
      </p>
    </section>
  );
}

/** Why there can be no training yet. */
function missingFor(state: State): string | undefined {
  if (state.opened === undefined) return "There is no model yet.";
  const { up, down } = rowsOf(state);
  if (up > 0 && down > 0) return undefined;
  return `It takes one thumb up and one thumb down at least; there ${up + down === 0 ? "is none" : up === 0 ? "is none up" : "is none down"} yet.`;
}
