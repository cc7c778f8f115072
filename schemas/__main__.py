"""``python -m schemas`` writes the JSON Schema files; with ``--check`` it only says which are not in step (exit 1)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from schemas import generate


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas", description="Write the JSON Schema files of the models.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is not in step")
    if parser.parse_args(arguments).check:
        names = generate.stale()
        if names:
            print(f"JSON Schema files not in step: {', '.join(names)}; run python -m schemas", file=sys.stderr)
        return 1 if names else 0
    for name in generate.write():
        print(f"schemas/json/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
