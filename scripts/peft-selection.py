"""Writes test/fixtures/peft/selection.json: which modules PEFT adapts, with what rank and alpha, for many configurations.

    python3 scripts/peft-selection.py <a checkout of huggingface/peft> > test/fixtures/peft/selection.json

The functions that decide are taken from the checkout and run as they are; torch is not needed. The rules for
"all-linear" (every linear layer but the head, by its whole name) are PEFT's _maybe_include_all_linear_layers.
"""
import ast, json, random, re, subprocess, sys
from types import SimpleNamespace
from typing import Optional, Sequence

checkout = sys.argv[1]


def functions(path, names, scope):
    source = open(f"{checkout}/{path}").read()
    for node in ast.parse(source).body:
        if getattr(node, "name", None) in names:
            exec("from __future__ import annotations\n" + ast.get_source_segment(source, node), scope)
    return scope


scope = functions(
    "src/peft/utils/other.py",
    {"match_target_against_key", "get_pattern_key"},
    {"re": re, "Optional": Optional, "Sequence": Sequence},
)
functions("src/peft/tuners/tuners_utils.py", {"_ExcludedModule", "check_target_module_exists"}, scope)

LAYERS = 12
FAMILIES = {
    "llama": [
        f"model.layers.{i}.{part}"
        for i in range(LAYERS)
        for part in [f"self_attn.{p}_proj" for p in "qkvo"] + [f"mlp.{p}_proj" for p in ("gate", "up", "down")]
    ],
    "gpt2": [
        f"transformer.h.{i}.{part}"
        for i in range(LAYERS)
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ],
}
TARGETS = {
    "llama": [
        "all-linear", "ALL-linear", ["q_proj", "v_proj"], ["proj"], ["o_proj", "query_key_value"], ["mlp.up_proj"],
        ["layers.1.self_attn.k_proj"], ["model.layers.3.mlp.down_proj", "k_proj"],
        r".*\.(q|v)_proj", r"model\.layers\.1\d?\..*_proj", r".*layers\.(0|11)\.mlp.*",
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:k_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|up_proj)))",
    ],
    "gpt2": ["all-linear", ["c_attn"], ["c_proj"], ["mlp.c_proj", "attn.c_attn"], r"transformer\.h\.[0-4]\.attn.*"],
}
EXCLUDED = {
    "llama": [None, None, [], ["layers.1.mlp.up_proj"], ["q_proj", "model.layers.11.self_attn.v_proj"], r".*\.1\d?\..*", "mlp"],
    "gpt2": [None, None, ["mlp.c_proj"], r"transformer\.h\.(0|1)\..*"],
}
LAYER_NUMBERS = [None, None, [], 1, [1], [0, 11], [2, 3, 40]]
PATTERNS = {"llama": [None, [], "layers", ["h", "layers"], ["lay.*"], "blocks"], "gpt2": [None, "h", ["layers"]]}
KEYS = {
    "llama": [
        "q_proj", "self_attn.v_proj", "_proj", ".*_proj", "layers.1.mlp.up_proj", "layers.1..*", r"^model\.layers\.0\..*",
        "model.layers.11.self_attn.k_proj", r"(gate|down)_proj", r"layers\.\d\.self_attn\.o_proj", "self_attn", "v_pro.",
    ],
    "gpt2": ["c_proj", "mlp.c_proj", r"h\.\d+\.attn\.c_attn", "^h.0.attn.c_attn", ".*"],
}
draw = random.Random(14)


def pattern(keys, values):
    return {key: draw.choice(values) for key in draw.sample(keys, draw.choice([0, 0, 1, 2, 3]))}


cases = []
for family, names in FAMILIES.items():
    for targets in TARGETS[family]:
        for _ in range(9):
            config = {
                "r": 8,
                "lora_alpha": 16,
                "target_modules": targets,
                "exclude_modules": draw.choice(EXCLUDED[family]),
                "layers_to_transform": None,
                "layers_pattern": None,
                "rank_pattern": pattern(KEYS[family], [1, 2, 4, 32]),
                "alpha_pattern": pattern(KEYS[family], [0.5, 3, 64]),
            }
            if isinstance(targets, list):
                config["layers_to_transform"] = draw.choice(LAYER_NUMBERS)
                if config["layers_to_transform"] not in (None, []):
                    config["layers_pattern"] = draw.choice(PATTERNS[family])
            resolved = set(names) if str(targets).lower() == "all-linear" else targets
            resolved = set(resolved) if isinstance(resolved, list) else resolved
            peft = SimpleNamespace(**{**config, "target_modules": resolved})
            selected = []
            for index, name in enumerate(names):
                if not scope["check_target_module_exists"](peft, name):
                    continue
                rank = config["rank_pattern"].get(scope["get_pattern_key"](config["rank_pattern"].keys(), name), 8)
                alpha = config["alpha_pattern"].get(scope["get_pattern_key"](config["alpha_pattern"].keys(), name), 16)
                selected.append([index, rank, alpha])
            cases.append({"family": family, "config": config, "selected": selected})

commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
modules = json.dumps(FAMILIES)
print(f'{{"peft":"{commit}","layers":{LAYERS},"modules":{modules},"cases":[\n{lines}\n]}}')
