"""How TRL 0.24 and LLaMA-Factory cut rows that are too long, as test/fixtures/truncations.json: their own functions run
on rows of ids, whose prompts begin with a BOS (1) and whose completions end with an EOS (2).

python3 scripts/truncations.py TRL LLAMAFACTORY > test/fixtures/truncations.json      (git directories)
"""
import ast
import json
import random
import subprocess
import sys
from types import SimpleNamespace


def function(repository, revision, path, name):
    source = subprocess.run(["git", "-C", repository, "show", f"{revision}:{path}"], capture_output=True, check=True).stdout.decode()
    node = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name)
    node.returns = None
    for argument in node.args.args:
        argument.annotation = None
    space = {}
    exec(compile(ast.Module([node], []), path, "exec"), space)
    return space[name]


trl, factory = sys.argv[1:]
process = function(trl, "v0.24.0", "trl/trainer/kto_trainer.py", "_process_tokens")
infer = function(factory, "HEAD", "src/llamafactory/data/processor/processor_utils.py", "infer_seqlen")
tokenizer = SimpleNamespace(bos_token_id=1, eos_token_id=2)
random.seed(0)
rows = []
for mode in ["keep_start", "keep_end", "proportional"]:
    for _ in range(60):
        prompt, completion, length = random.randint(1, 40), random.randint(1, 40), random.randint(8, 48)
        limit = random.randint(2, length - 1)
        if mode == "proportional":
            kept_prompt, kept_completion = infer(prompt, completion, length)
            rows.append([mode, prompt, completion, length, None, kept_prompt, kept_completion])
            continue
        ids = [1, *range(100, 99 + prompt)]
        answer = [*range(200, 199 + completion), 2]
        example = {
            **{"prompt": "", "completion": "", "label": True, "prompt_input_ids": ids, "answer_input_ids": answer},
            **{"prompt_attention_mask": [1] * len(ids), "answer_attention_mask": [1] * len(answer)},
        }
        out = process(
            example,
            **{"prefix": "", "is_encoder_decoder": False, "tokenizer": tokenizer, "max_length": length},
            **{"truncation_mode": mode, "max_prompt_length": limit, "label_pad_token_id": -100},
        )
        kept = out["prompt_input_ids"]
        rest = out["completion_input_ids"][len(kept) :]
        rows.append([mode, prompt, completion, length, limit, kept, rest])
print("[")
print(",\n".join(json.dumps(row) for row in rows))
print("]")
