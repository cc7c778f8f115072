"""The bare rate: what reading and decoding cost with nothing done. Frozen: numbers of years are compared with it.

python bare.py BOOTSTRAP TOPIC READINGS
"""

import sys

import numpy as np
import orjson
from kafka import KafkaConsumer, TopicPartition

bootstrap, topic, readings = sys.argv[1], sys.argv[2], int(sys.argv[3])
consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
consumer.assign([TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))])
seen, total = 0, 0.0
while seen < readings:
    for records in consumer.poll(timeout_ms=200).values():
        for record in records:
            reading = orjson.loads(record.value)
            row = np.array(list(reading["values"].values()), dtype=np.float32)
            total += float(row[0])
            seen += 1
print(seen)
