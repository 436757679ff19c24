/** Modelfiles for Ollama: chat templates in its language, and the settings of a model. */
import { describe, expect, test } from "vitest";
import { isNameForOllama, modelfile, ollamaTemplate } from "../../../../src/engine/model/export/modelfile.ts";
import { createChatTemplate, loadChatTemplate } from "../../../../src/engine/text/chat-template.ts";
import { readModelfile } from "../../../helpers/modelfile.ts";
import { llama2Template, tokenizerFolders } from "../../../helpers/tokenizers.ts";

const tokens = { bos_token: "<s>", eos_token: "</s>" };
const of = (text: string, bos?: string) => ollamaTemplate(createChatTemplate(text, tokens, "template"), bos);

const CHATML = `{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`;

describe("a chat template in Ollama's language", () => {
  test("puts the texts of ChatML around the messages", () => {
    expect(of(CHATML)).toBe(
      '{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ else }}{{ end }}{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n<|im_start|>assistant\n{{ else if eq .Role "assistant" }}{{ .Content }}<|im_end|>\n{{ end }}{{ end }}',
    );
  });

  test("leaves out the token that llama.cpp puts before a text, and only there", () => {
    const text = of(llama2Template, "<s>");
    expect(text).toContain("{{ if .System }}[INST] <<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ else }}[INST] {{ end }}");
    expect(text).toContain("{{ .Content }} </s><s>[INST] {{ end }}");
    expect(of(llama2Template)).toContain("{{ else }}<s>[INST] {{ end }}");
  });

  test("has the system message that the template gives of itself, and what opens the answer", () => {
    const text = of(
      `{% if messages[0].role != 'system' %}[sys]Be kind.[/sys]{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}{% if add_generation_prompt %}<assistant><think></think>{% endif %}`,
    );
    expect(text).toContain("{{ else }}[sys]Be kind.[/sys]{{ end }}");
    expect(text?.endsWith("{{ end }}{{ end }}<think></think>")).toBe(true);
  });

  test("real ones of Qwen 3 and Llama 3.1 are translated; the date of one that asks for it is not frozen", async () => {
    const [qwen, llama] = await Promise.all(
      [tokenizerFolders.qwen3, tokenizerFolders.llama3_1].map((folder) => loadChatTemplate(folder)),
    );
    expect(qwen && ollamaTemplate(qwen, undefined)).toContain("<|im_start|>user\n{{ .Content }}<|im_end|>\n");
    expect(llama && ollamaTemplate(llama, "<|begin_of_text|>")).toContain(
      "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ else }}{{ end }}",
    );
    expect(of(`{{ strftime_now('%d') }}${CHATML}`)).toBeUndefined();
  });

  test.each([
    ["more than fixed texts", "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}"],
    ["a message twice", "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}"],
    ["a message left out", "{{ messages[0].content }}"],
    ["an error", "{{ raise_exception('no') }}"],
    ["what Go would read as an action", "{% for m in messages %}{{ '{{' }}{{ m.content }}{% endfor %}"],
    ["a bracket before an action", "{% for m in messages %}{{ '{' }}{{ m.content }}{% endfor %}"],
    ["a character that Ollama drops", "{% for m in messages %}\u200b{{ m.role }}\u00a0{{ m.content }}\\n{% endfor %}"],
    ["the end of its quotation", '{% for m in messages %}"""{{ m.content }}{% endfor %}'],
  ])("cannot have %s", (_, text) => {
    expect(of(text)).toBeUndefined();
  });
});

test("a Modelfile has the file, the template and the model's own sampling", () => {
  const sampling = {
    doSample: true,
    temperature: 0.6,
    topK: 20,
    topP: 0.95,
    minP: undefined,
    repetitionPenalty: 1.1,
    ignored: [],
  };
  const facts = { model: "m.gguf", template: "{{ .Prompt }}", sampling, contextLength: 512, notes: [] };
  expect(modelfile(facts)).toBe(`FROM ./m.gguf
TEMPLATE """{{ .Prompt }}"""
PARAMETER temperature 0.6
PARAMETER top_k 20
PARAMETER top_p 0.95
PARAMETER repeat_penalty 1.1
PARAMETER num_ctx 512
`);
  const greedy = { ...sampling, doSample: false };
  const adapter = {
    ...facts,
    adapter: "a.gguf",
    template: undefined,
    sampling: greedy,
    contextLength: 8192,
    notes: ["A note."],
  };
  expect(modelfile(adapter)).toBe(`# A note.
FROM ./m.gguf
ADAPTER ./a.gguf
PARAMETER temperature 0
PARAMETER top_k 20
PARAMETER top_p 0.95
PARAMETER repeat_penalty 1.1
`);
});

test("Ollama's reader finds in it what was meant, whatever the texts are", () => {
  const sampling = {
    ...{ doSample: true, temperature: 1e-7, topK: 20, topP: 0.95, minP: 0.05, repetitionPenalty: 1.1 },
    ignored: [],
  };
  const templates = [CHATML, `{% for m in messages %}"{{ m.role }}" = '}'\t{{ m.content }}"\r\n{% endfor %}"`].map(
    (text) => of(text),
  );
  for (const template of templates) {
    expect(template).toBeDefined();
    for (const [model, notes] of [
      ["m.gguf", []],
      ['my "best" model #1.gguf', ["The base of the adapter: kto\nFROM ./other.gguf"]],
    ] as const) {
      expect(isNameForOllama(model)).toBe(true);
      const text = modelfile({ model, adapter: "a b.gguf", template, sampling, contextLength: 512, notes });
      expect(readModelfile(text)).toEqual([
        { name: "from", value: `./${model}` },
        { name: "adapter", value: "./a b.gguf" },
        { name: "template", value: template },
        { name: "temperature", value: "1e-7" },
        { name: "top_k", value: "20" },
        { name: "top_p", value: "0.95" },
        { name: "min_p", value: "0.05" },
        { name: "repeat_penalty", value: "1.1" },
        { name: "num_ctx", value: "512" },
      ]);
    }
  }
  for (const name of ["a\nb.gguf", " a.gguf", "a\u200b.gguf"]) expect(isNameForOllama(name)).toBe(false);
});
