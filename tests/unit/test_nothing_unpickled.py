"""Nothing is ever unpickled or evaluated: looked for in the source of everything that is shipped."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [
    file for room in ("schemas", "detector", "trainer", "deploy") for file in sorted((ROOT / room).rglob("*.py"))
]

#: Modules that unpickle, or run what they read.
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "yaml", "code",
}  # fmt: skip

#: Functions that do, whatever they are called on; ``load`` is looked at by itself.
CALLS = {
    "eval", "exec", "compile", "__import__", "read_pickle", "to_pickle", "load_module", "register_custom_ops_library",
    "extensionarray_from_pickle", "unpickle", "loads_pickle",
}  # fmt: skip


#: Of the one module that may be imported for the sake of some functions, which are called by its name.
SAFE = {"yaml": {"safe_load", "safe_load_all", "safe_dump", "safe_dump_all"}}


def offences(source: str) -> list[str]:
    """What of it unpickles, or might."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            known = [a.name for a in node.names if a.name in SAFE and a.asname is None]
            found += [a.name for a in node.names if a.name.partition(".")[0] in MODULES and a.name not in known]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [node.module] if (node.module or "").partition(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            found += _call(node)
    return [str(offence) for offence in found]


def _call(node: ast.Call) -> list[str]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    said = ast.unparse(node)
    if owner in SAFE:
        return [] if name in SAFE[owner] else [said]
    if name in CALLS and owner != "re" and (node.args or node.keywords):  # a network's .eval() takes nothing
        return [said]
    if keywords.get("allow_pickle", "False") != "False":
        return [said]
    if owner in ("np", "numpy", "np.lib.format") and name in ("load", "read_array") and "allow_pickle" not in keywords:
        return [said]
    if owner == "torch" and name in ("load", "save") and keywords.get("weights_only") != "True":
        return [said]
    return []


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_in_it_unpickles(file: Path) -> None:
    assert offences(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.memory",
        "from dill import loads",
        "def f():\n    from yaml import load",
        "import yaml as other",
        "import yaml.loader",
        "import yaml\nyaml.load(f)",
        "import yaml\nyaml.unsafe_load(f)",
        "np.load(f)",
        "numpy.load(f, mmap_mode='r')",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=x)",
        "np.lib.format.read_array(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "pandas.read_pickle(f)",
        "eval(text)",
        "exec(text)",
        "options.register_custom_ops_library(path)",
    ],
)  # fmt: skip
def test_what_unpickles_is_found(source: str) -> None:
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "np.load(f, allow_pickle=False)",
        "torch.load(f, weights_only=True)",
        "re.compile(x)",
        "network.eval()",
        "json.load(f)",
    ],
)  # fmt: skip
def test_what_does_not_is_let_pass(source: str) -> None:
    assert offences(source) == []
