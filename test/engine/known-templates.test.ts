/** A model's own chat template against the name that other trainers have for one. */
import { describe, expect, test } from "vitest";
import { checkTemplateName, type KnownTemplateName } from "../../src/engine/known-templates.ts";
import { createChatTemplate, loadChatTemplate } from "../../src/engine/text/chat-template.ts";
import { llama2Template, tokenizerFolders } from "../helpers/tokenizers.ts";

const tokens = { bos_token: "<s>", eos_token: "</s>" };
const chatml =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}";

function check(text: string, name: KnownTemplateName): () => void {
  return () => checkTemplateName(createChatTemplate(text, tokens, "own.jinja"), name);
}

describe("checkTemplateName", () => {
  test("Qwen3's own template is qwen3, with its empty thoughts, and not qwen3_nothink", async () => {
    const own = await loadChatTemplate(tokenizerFolders.qwen3);
    if (own === undefined) throw new Error("the tokenizer brings no template");
    expect(() => checkTemplateName(own, "qwen3")).not.toThrow();
    expect(() => checkTemplateName(own, "qwen3_nothink")).toThrow(/"qwen3_nothink" writes .* but the model's own/);
  });

  test.each<[string, KnownTemplateName]>([
    [chatml, "qwen3_nothink"],
    [chatml, "chatml"],
    [`{{ bos_token }}${chatml}`, "smollm"],
    [
      "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}{% endfor %}",
      "llama3",
    ],
    [
      "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m.content + '[/INST]' if m.role == 'user' else ' ' + m.content + eos_token }}{% endfor %}",
      "mistral",
    ],
  ])("%s is %s", (text, name) => {
    expect(check(text, name)).not.toThrow();
  });

  test("a space that differs is a difference, and both texts are quoted", () => {
    expect(check(llama2Template, "llama2")).toThrow(
      'the chat template "llama2" writes "[INST] What is it? [/INST]A test.</s>", but the model\'s own (own.jinja) writes "<s>[INST] What is it? [/INST] A test. </s>": leave the name out',
    );
    expect(check(chatml, "qwen")).toThrow("You are Qwen");
    expect(check(chatml, "llama3")).toThrow("<|start_header_id|>");
  });
});
