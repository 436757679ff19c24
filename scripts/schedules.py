"""Writes test/fixtures/schedules.json: learning rates as transformers' own code gives them, for test/engine/schedule.test.ts.

    pip download --no-deps transformers==5.18.0 && unzip transformers-*.whl -d unpacked
    python3 scripts/schedules.py unpacked/transformers

The schedules are plain Python functions, so torch need not be installed: what optimization.py imports from torch is
stood in for by a LambdaLR that keeps its function. The warm-up's length is TrainingArguments.get_warmup_steps.
"""

import ast
import enum
import json
import math
import pathlib
import sys
import types
from unittest.mock import MagicMock

package = pathlib.Path(sys.argv[1])

NAMES = [
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
]
# Members that are named otherwise than by their value in capitals.
MEMBERS = {"reduce_lr_on_plateau": "REDUCE_ON_PLATEAU"}


class LambdaLR:
    def __init__(self, optimizer, lr_lambda, last_epoch=-1):
        self.rate = lambda step: optimizer.defaults["lr"] * lr_lambda(step)


def module(name, **members):
    made = sys.modules[name] = types.ModuleType(name)
    vars(made).update(members)
    return made


def load():
    torch = MagicMock()
    sys.modules["torch"] = torch
    module("torch.optim", Optimizer=object)
    module("torch.optim.lr_scheduler", LambdaLR=LambdaLR, ReduceLROnPlateau=object)
    module("stand_in", __path__=[])
    module("stand_in.trainer_pt_utils", LayerWiseDummyOptimizer=LambdaLR, LayerWiseDummyScheduler=LambdaLR)
    scheduler_type = enum.Enum("SchedulerType", {MEMBERS.get(name, name.upper()): name for name in NAMES})
    module("stand_in.trainer_utils", SchedulerType=scheduler_type)
    module("stand_in.utils", logging=MagicMock())
    made = module("stand_in.optimization", __package__="stand_in")
    exec(compile((package / "optimization.py").read_text(), "optimization.py", "exec"), vars(made))
    return made


def warmup_of():
    tree = ast.parse((package / "training_args.py").read_text())
    function = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "get_warmup_steps")
    scope = {"math": math}
    exec(compile(ast.Module([function], []), "training_args.py", "exec"), scope)
    return lambda given, total: scope["get_warmup_steps"](types.SimpleNamespace(warmup_steps=given), total)


get_scheduler = load().get_scheduler
warmup_steps = warmup_of()

CASES = [
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.25}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {}),
    ("polynomial", {"power": 2.5, "lr_end": 1e-5}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 7}),
    ("cosine_with_min_lr", {"min_lr": 2e-5}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1, "num_cycles": 0.75}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", {"min_lr": 2e-5, "warmup_lr_rate": 0.25, "num_cycles": 1}),
    ("warmup_stable_decay", {"num_decay_steps": 4}),
    ("warmup_stable_decay", {"num_decay_steps": 4, "min_lr_ratio": 0.1, "warmup_type": "cosine", "decay_type": "linear"}),
    ("warmup_stable_decay", {"num_decay_steps": 3, "num_stable_steps": 2, "warmup_type": "1-sqrt", "decay_type": "1-sqrt"}),
]
LEARNING_RATE, TOTAL = 3e-4, 13

schedules = []
for name, kwargs in CASES:
    for given in (0, 3, 0.3, 20):
        warmup = warmup_steps(given, TOTAL)
        optimizer = types.SimpleNamespace(defaults={"lr": LEARNING_RATE})
        schedule = get_scheduler(name, optimizer, warmup, TOTAL, kwargs)
        rates = [schedule.rate(step) for step in range(TOTAL)]
        schedules.append({"type": name, "kwargs": kwargs, "warmup_steps": given, "rates": rates})

version = next(line.split('"')[1] for line in (package / "__init__.py").read_text().splitlines() if "__version__ =" in line)
fixture = {"transformers": version, "learning_rate": LEARNING_RATE, "total_steps": TOTAL, "schedules": schedules}
lines = ",\n".join(json.dumps(one) for one in schedules)
head = json.dumps({**fixture, "schedules": []})[: -len("]}")]
out = pathlib.Path(__file__).parent.parent / "test" / "fixtures" / "schedules.json"
out.write_text(f"{head}\n{lines}\n]}}\n")
