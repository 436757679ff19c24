"""The options of other trainers with their defaults, as test/fixtures/option-lists.json, read from their sources.

python3 scripts/option-lists.py TRL LLAMAFACTORY AXOLOTL TRANSFORMERS4 TRANSFORMERS5 > test/fixtures/option-lists.json

The first three are git directories of the repositories, the last two wheels of transformers. Names and literal defaults
of dataclass and pydantic fields are kept, nothing else; a default that is no literal is null.
"""
import ast
import json
import subprocess
import sys
import zipfile


def at(repository, revision, path):
    return subprocess.run(["git", "-C", repository, "show", f"{revision}:{path}"], capture_output=True, check=True).stdout.decode()


def literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def default(value):
    if isinstance(value, ast.Call):
        given = [keyword.value for keyword in value.keywords if keyword.arg == "default"]
        return literal(given[0]) if given else None
    return None if value is None else literal(value)


def fields(source, *classes):
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or (classes and node.name not in classes):
            continue
        for one in node.body:
            if isinstance(one, ast.AnnAssign) and not one.target.id.startswith("_VALID"):
                found[one.target.id] = default(one.value)
    return found


trl, factory, axolotl, older, newer = sys.argv[1:]
head = lambda path, *classes: fields(at(trl, "HEAD", path), *classes)
old = lambda path, *classes: fields(at(trl, "v0.24.0", path), *classes)
wheel = lambda path: fields(zipfile.ZipFile(path).read("transformers/training_args.py").decode(), "TrainingArguments")
hparams = "src/llamafactory/hparams/"
schemas = "src/axolotl/utils/schemas/"
lists = {
    "transformers 4.57.6": wheel(older),
    "transformers 5.18.0": wheel(newer),
    "trl 0.24.0": {
        **old("trl/trainer/kto_config.py", "KTOConfig"),
        **old("trl/trainer/model_config.py", "ModelConfig"),
        **old("trl/scripts/utils.py", "ScriptArguments"),
    },
    "trl 1.10.0.dev0 (f2cd577)": {
        **head("trl/trainer/base_config.py", "_BaseConfig"),
        **head("trl/trainer/kto_config.py", "KTOConfig"),
        **head("trl/trainer/model_config.py", "ModelConfig"),
        **head("trl/scripts/utils.py", "ScriptArguments"),
    },
    "llamafactory (ff6d4d1)": {
        name: value
        for file in ["data_args", "finetuning_args", "generating_args", "model_args", "training_args"]
        for name, value in fields(at(factory, "HEAD", f"{hparams}{file}.py")).items()
    },
    "axolotl (067b021)": {
        **{
            name: value
            for file, classes in {
                "config": ["AxolotlInputConfig"],
                "deprecated": ["DeprecatedParameters", "RemappedParameters"],
                "integrations": [],
                "model": ["ModelInputConfig", "ModelOutputConfig"],
                "peft": ["LoraConfig", "ReLoRAConfig"],
                "training": ["HyperparametersConfig", "JaggedLRConfig"],
            }.items()
            for name, value in fields(at(axolotl, "HEAD", f"{schemas}{file}.py"), *classes).items()
        },
    },
}
print("{")
print(",\n".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in lists.items()))
print("}")
