"""Bytes from outside never become code: nothing is unpickled, evaluated or imported by a name that came with data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import detector

ROOT = Path(detector.__file__).resolve().parent.parent
SOURCES = sorted(path for room in ("schemas", "detector", "trainer", "deploy") for path in (ROOT / room).rglob("*.py"))

#: Modules that make objects, or run code, out of bytes.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy", "yaml", "imp"}
#: Calls that do, by name; and others, with the argument that keeps them from it.
CALLS = {"eval", "exec", "compile", "__import__"}
LOADS = {"np.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}


def faults(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)):
                if module.partition(".")[0] in MODULES:
                    yield module
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name
            case ast.Call(func=ast.Attribute(attr=name) as function, keywords=keywords):
                called = ast.unparse(function)
                if called in LOADS:
                    argument, wanted = LOADS[called]
                    given = {
                        keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == argument
                    }
                    if given.get(argument) is not wanted:
                        yield called
                elif name == "read_pickle":
                    yield called


def test_no_source_makes_objects_of_bytes() -> None:
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): list(faults(ast.parse(path.read_text("utf-8")))) for path in SOURCES}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from joblib import load", "import yaml", "np.load(x)", "np.load(x, allow_pickle=True)",
     "torch.load(x)", "eval(x)", "pd.read_pickle(x)"],
)  # fmt: skip
def test_it_would_be_found(text: str) -> None:
    assert len(list(faults(ast.parse(text)))) == 1
