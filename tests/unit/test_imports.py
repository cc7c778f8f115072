"""The detector is light: a fresh interpreter that imports all of it has loaded neither torch nor the trainer."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import detector
import schemas

ROOT = Path(detector.__file__).resolve().parent.parent


def modules_of(package: object) -> list[str]:
    paths, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    return [name, *(module.name for module in pkgutil.walk_packages(paths, f"{name}."))]


def loaded_after_importing(names: list[str]) -> set[str]:
    """Every module that a fresh interpreter holds after importing these."""
    code = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_all_of_the_detector_loads_neither_torch_nor_the_trainer() -> None:
    names = [name for name in modules_of(detector) + modules_of(schemas) if not name.endswith("__main__")]
    assert {"detector.service", "detector.engine.engine", "detector.adapters.port"} <= set(names)
    loaded = loaded_after_importing(names)
    assert set(names) <= loaded
    assert {name.partition(".")[0] for name in loaded} & {"torch", "trainer", "matplotlib"} == set()


def test_the_engine_loads_neither_kafka_nor_an_adapter() -> None:
    engine = [name for name in modules_of(detector) if name.startswith("detector.engine")]
    loaded = loaded_after_importing(engine)
    assert not [name for name in loaded if name.partition(".")[0] == "kafka" or name.startswith("detector.adapters")]


def test_offline_scoring_starts_without_the_kafka_client() -> None:
    assert "kafka" not in loaded_after_importing(["detector.cli"])
