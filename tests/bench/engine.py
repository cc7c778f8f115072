"""The engine alone, fed decoded arrays, and where its time goes. Prints JSON.

python engine.py MODEL READINGS BATCH
"""

from __future__ import annotations

import json
import sys
import time

import load

from detector.adapters.folder import read_model
from detector.engine.engine import BUCKETS, Engine


def main(model: str, readings: int, batch: int) -> None:
    """Rate per CPU-second, shares of the engine's stages, bytes of state per stream."""
    engine = Engine(read_model(model))
    batches = list(load.table(load.FIT_STEPS, -(-readings // load.STREAMS)).batches(batch))
    began = time.process_time()
    alerts = sum(len(engine.process(b).published) for b in batches)
    spent = time.process_time() - began
    state = sum(len(engine.dump(0, bucket)) for bucket in range(BUCKETS))
    count = sum(len(r) for b in batches for r in b)
    print(
        json.dumps(
            {
                "rate": count / spent,
                "alerts": alerts,
                "shares": {name: seconds / spent for name, seconds in engine.seconds.items()},
                "bytes_per_stream": state / load.STREAMS,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
