/** Stories as they are told, each with two thumbs. */
import { useState } from "preact/hooks";
import { judgeStory } from "../quickstart/judge.ts";
import type { Engine } from "./engine.ts";
import { NumberField } from "./number-field.tsx";
import { isFree, rowsOf, type Story } from "./state.ts";

export function Stories({ engine }: { readonly engine: Engine }) {
  const { state, tell, thumb } = engine;
  const [count, setCount] = useState(6);
  const [tokens, setTokens] = useState(48);
  const { up, down } = rowsOf(state);
  const open = state.stories.filter(({ label, isWhole }) => isWhole && label === undefined);
  const judge = () => {
    for (const { told } of open) thumb(told.id, judgeStory(told.text).good);
  };
  return (
    <section class="panel" aria-labelledby="stories">
      <h2 id="stories">Stories and thumbs</h2>
      <p>
        Give a thumb to each story that you have an opinion on. {up} up, {down} down so far.
      </p>
      <div class="form">
        <NumberField label="Stories" value={count} min={1} max={24} onValue={setCount} />
        <NumberField label="Tokens of each" value={tokens} min={8} max={200} onValue={setTokens} />
        <button type="button" disabled={!isFree(state)} onClick={() => tell(count, tokens)}>
          Tell more stories
        </button>
        <button type="button" disabled={open.length === 0} onClick={judge}>
          Give the others the thumbs of a rule
        </button>
      </div>
      <p class="faint">The rule is the quickstart’s: a story is good if it ends happily and does not repeat itself.</p>
      <ul class="stories">
        {state.stories.map((story) => (
          <StoryCard key={story.told.id} story={story} onThumb={(label) => thumb(story.told.id, label)} />
        ))}
      </ul>
    </section>
  );
}

interface StoryCardProps {
  readonly story: Story;
  readonly onThumb: (label: boolean | undefined) => void;
}

function StoryCard({ story: { told, isWhole, label }, onThumb }: StoryCardProps) {
  const name = `story ${told.id + 1}`;
  return (
    <li class={label === undefined ? "story" : `story ${label ? "up" : "down"}`} data-id={told.id}>
      <p>
        <b>{told.prompt}</b>
        {told.text}
        {isWhole ? "" : " …"}
      </p>
      <div class="thumbs">
        {([true, false] as const).map((good) => (
          <button
            key={String(good)}
            type="button"
            aria-pressed={label === good}
            aria-label={`Thumb ${good ? "up" : "down"} for ${name}`}
            disabled={!isWhole}
            onClick={() => onThumb(label === good ? undefined : good)}
          >
            <Thumb isUp={good} />
          </button>
        ))}
      </div>
    </li>
  );
}

/** Drawn, since not every system has a character for it. */
function Thumb({ isUp }: { readonly isUp: boolean }) {
  return (
    <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
      <path
        transform={isUp ? "" : "rotate(180 12 12)"}
        d="M2 10h4v11H2zM8 21h9.5c.9 0 1.7-.6 1.9-1.5l2-7.5c.3-1.3-.6-2.5-1.9-2.5H14l1-4.6c.2-1.1-.3-2.3-1.3-2.9L8 9.5z"
      />
    </svg>
  );
}
