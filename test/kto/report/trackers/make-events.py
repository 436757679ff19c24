"""Makes events.json: records of event files as TensorBoard's own writer writes them (tensorboard 2.21.0).

python3 make-events.py > events.json
"""

import io
import json
import struct

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

Event, Summary, Value = event_pb2.Event, summary_pb2.Summary, summary_pb2.Summary.Value


def scalars(pairs):
    return Summary(value=[Value(tag=tag, simple_value=value) for tag, value in pairs])


def text(tag, words):
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[words.encode()], tensor_shape=shape)
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    return Summary(value=[Value(tag=tag, metadata=summary_pb2.SummaryMetadata(plugin_data=plugin), tensor=tensor)])


start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
words = "    {\n      \"learning_rate\": 5e-06, \"of\": \"Bücher\"\n    }" * 4
cases = [
    (1764512345.25, 0, {"version": "brain.Event:2"}, Event(file_version="brain.Event:2")),
    (1764512345.5, 7, {"sessionStarts": True}, Event(session_log=start)),
    (1764512345.5, 0, {"tag": "args/text_summary", "text": words}, Event(summary=text("args/text_summary", words))),
    (1764512346.0, 10, {"scalars": {"train/loss": 0.5}}, Event(summary=scalars([("train/loss", 0.5)]))),
    (
        1764512346.123,
        5_000_000_000,
        {"scalars": {"train/rewards/chosen": -0.1, "eval/kl": 0, "train/grad_norm": 3e38, "é" * 100: 1e-40}},
        Event(summary=scalars([("train/rewards/chosen", -0.1), ("eval/kl", 0), ("train/grad_norm", 3e38), ("é" * 100, 1e-40)])),
    ),
    (1764512347.0, 11, {"scalars": {"train/loss": "NaN"}}, Event(summary=scalars([("train/loss", float("nan"))]))),
    (1764512347.0, 12, {"scalars": {"train/loss": "-Infinity"}}, Event(summary=scalars([("train/loss", float("-inf"))]))),
]

made = []
for seconds, step, content, event in cases:
    event.wall_time, event.step = seconds, step
    file = io.BytesIO()
    RecordWriter(file).write(event.SerializeToString(deterministic=True))
    made.append({"seconds": seconds, "step": step, "content": content, "record": file.getvalue().hex()})
print(json.dumps(made, indent=1, ensure_ascii=False))
