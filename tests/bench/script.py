"""The obvious script: a deque per stream and one ONNX Runtime call per reading. Frozen, as bare.py.

python script.py BOOTSTRAP TOPIC READINGS MODEL
"""

import json
import sys
from collections import defaultdict, deque
from pathlib import Path

import numpy as np
import onnxruntime
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

bootstrap, topic, readings, model = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
manifest = json.loads((model / "manifest.json").read_text())
values = np.load(model / "streams.npz")
loc, scale, threshold = values["loc"], values["scale"], values["threshold"]
rows = {name: n for n, name in enumerate(values["names"].tolist())}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(str(model / "model.onnx"), options, providers=["CPUExecutionProvider"])
channels = [channel["name"] for channel in manifest["channels"]]
windows = defaultdict(lambda: deque(maxlen=manifest["window"]))
consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
consumer.assign([TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))])
producer = KafkaProducer(bootstrap_servers=bootstrap)
seen = 0
while seen < readings:
    for records in consumer.poll(timeout_ms=200).values():
        for record in records:
            seen += 1
            reading = json.loads(record.value)
            window = windows[reading["stream"]]
            window.append([reading["values"][name] for name in channels])
            if len(window) < manifest["window"]:
                continue
            row = rows[reading["stream"]]
            x = np.array(window, dtype=np.float32)[None]
            (score,) = session.run(
                ["score"],
                {
                    "x": x,
                    "mask": ~np.isnan(x),
                    "loc": loc[row : row + 1],
                    "scale": scale[row : row + 1],
                },
            )
            if score[0] > threshold[row]:
                producer.send(f"{topic}-script-alerts", json.dumps({"stream": reading["stream"]}).encode())
producer.flush()
print(seen)
