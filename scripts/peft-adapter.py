"""
Writes test/fixtures/peft/dora: an adapter over the fixture "llama" as PEFT 0.18 saves one, with Python's safetensors, and
beside it the weights that its formulas give in float64. PEFT itself needs PyTorch and is not run; names, shapes and
formulas are those of its lora/layer.py, lora/dora.py and utils/save_and_load.py.

    pip install safetensors numpy && python scripts/peft-adapter.py

DoRA (of a linear layer, whose weight W has a row for each output): W' = m / |W + s B A| (W + s B A), the length taken of
each row; of an embedding, whose A has a column for each token: the length is taken of each column. `modules_to_save`
holds the head whole.
"""

import json
import os

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "fixtures")
OUT = os.path.join(ROOT, "peft", "dora")
R, ALPHA, LAYER = 2, 6, 1
RANK_OF_DOWN, ALPHA_OF_DOWN = 3, 12

base = load_file(os.path.join(ROOT, "llama", "policy", "model.safetensors"))
random = np.random.default_rng(5)
adapter, merged = {}, {}


def drawn(*shape):
    return random.normal(0, 0.2, shape).astype(np.float32)


def near(lengths):
    return (lengths * random.uniform(0.8, 1.25, lengths.shape)).astype(np.float32)


for module, r, alpha in [
    (f"model.layers.{LAYER}.self_attn.q_proj", R, ALPHA),
    (f"model.layers.{LAYER}.mlp.down_proj", RANK_OF_DOWN, ALPHA_OF_DOWN),
]:
    weight = base[f"{module}.weight"].astype(np.float64)
    a, b = drawn(r, weight.shape[1]), drawn(weight.shape[0], r)
    whole = weight + alpha / r * (b.astype(np.float64) @ a.astype(np.float64))
    m = near(np.linalg.norm(weight, axis=1))
    adapter[f"base_model.model.{module}.lora_A.weight"] = a
    adapter[f"base_model.model.{module}.lora_B.weight"] = b
    adapter[f"base_model.model.{module}.lora_magnitude_vector"] = m
    merged[f"{module}.weight"] = (m / np.linalg.norm(whole, axis=1))[:, None] * whole

module = "model.embed_tokens"
weight = base[f"{module}.weight"].astype(np.float64)
a, b = drawn(R, weight.shape[0]), drawn(weight.shape[1], R)
whole = weight + ALPHA / R * (b.astype(np.float64) @ a.astype(np.float64)).T
m = near(np.linalg.norm(weight, axis=0))
adapter[f"base_model.model.{module}.lora_embedding_A"] = a
adapter[f"base_model.model.{module}.lora_embedding_B"] = b
adapter[f"base_model.model.{module}.lora_magnitude_vector"] = m
merged[f"{module}.weight"] = (m / np.linalg.norm(whole, axis=0))[None, :] * whole

head = (base["lm_head.weight"] * random.uniform(0.9, 1.1, base["lm_head.weight"].shape)).astype(np.float32)
adapter["base_model.model.lm_head.weight"] = head
merged["lm_head.weight"] = head

os.makedirs(OUT, exist_ok=True)
save_file(adapter, os.path.join(OUT, "adapter_model.safetensors"), metadata={"format": "pt"})
whole = {name: np.ascontiguousarray(value, np.float32) for name, value in merged.items()}
save_file(whole, os.path.join(OUT, "merged.safetensors"))
with open(os.path.join(OUT, "adapter_config.json"), "w") as file:
    config = {
        "alpha_pattern": {"mlp.down_proj": ALPHA_OF_DOWN},
        "base_model_name_or_path": "llama",
        "bias": "none",
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "modules_to_save": ["lm_head"],
        "peft_type": "LORA",
        "r": R,
        "rank_pattern": {"mlp.down_proj": RANK_OF_DOWN},
        "target_modules": [f"layers.{LAYER}.self_attn.q_proj", f"layers.{LAYER}.mlp.down_proj", "embed_tokens"],
        "task_type": "CAUSAL_LM",
        "use_dora": True,
        "use_rslora": False,
    }
    json.dump(config, file, indent=2)
    file.write("\n")
