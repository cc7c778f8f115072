"""Whether what lies in deploy/ holds together, and fits the programs: part of `make check`. Exit 1 where it does not.

Programs are not started: their command lines and variables are read as the programs themselves would. Tools that are
not installed (kustomize, promtool, amtool, systemd-analyze, hadolint) are passed over, and named.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from detector import cli as detector_cli
from detector.adapters.metrics import ArrayHistogram, Metrics
from detector.flags import given
from detector.notify.metrics import NotifyMetrics
from schemas.errors import ResidualError
from schemas.notify import NotifySettings
from schemas.page import PageSettings
from schemas.settings import DetectorSettings, Settings
from trainer import cli as trainer_cli
from trainer.retrain.settings import RetrainSettings
from trainer.settings import FitSettings

HERE = Path(__file__).resolve().parent
BASE = HERE / "kubernetes" / "base"
OVERLAYS = ("gpu", "autoscale")
RULES = HERE / "prometheus" / "residual.rules.yaml"
RULE_TESTS = ("residual.rules.test.yaml", "residual.rules.slow.test.yaml")
DASHBOARD = HERE / "grafana" / "residual.json"
RUNBOOK = HERE.parent / "docs" / "runbook.md"

#: The program in each image, and what its commands read.
CONTAINERFILES = {"residual-detector": "detector.Containerfile", "residual-trainer": "trainer.Containerfile"}
SETTINGS: dict[tuple[str, str], type[Settings]] = {
    ("detector", "run"): DetectorSettings,
    ("detector", "notify"): NotifySettings,
    ("detector", "page"): PageSettings,
    ("trainer", "retrain"): RetrainSettings,
}
PARSERS = {"detector": detector_cli._parser, "trainer": trainer_cli._parser}

#: Kinds that Kubernetes itself has no schema of.
FOREIGN = ("kustomize.config.k8s.io/v1beta1", "keda.sh/v1alpha1")

SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True)
class Program:
    """A program as a deployment starts it."""

    where: str
    arguments: tuple[str, ...]
    variables: dict[str, str]


# -- what is there -----------------------------------------------------------------------------------------------------


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def image(name: str) -> tuple[str, list[str], dict[str, str]]:
    """Of an image of ours: its program, the arguments where none are given, and the variables that it sets."""
    text = (HERE / "containers" / CONTAINERFILES[name]).read_text().replace("\\\n", " ")
    program = json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.M)[-1])[0]
    arguments = json.loads(re.findall(r"^CMD (.*)$", text, re.M)[-1])
    settings = [word for line in re.findall(r"^ENV (.*)$", text, re.M) for word in shlex.split(line)]
    return program, arguments, dict(word.split("=", 1) for word in settings)


def env_file(path: Path) -> dict[str, str]:
    """The variables of a file of them."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def programs() -> Iterator[Program]:
    """All that the files start."""
    yield from _of_compose(["compose.yaml"])
    yield from _of_compose(["compose.yaml", "compose.secured.yaml"])
    for path in sorted(BASE.glob("*.yaml")):
        for document in documents(path):
            yield from _of_kubernetes(path, document)
    for path in sorted((HERE / "systemd").glob("*.service")):
        yield _of_systemd(path)


def _program(where: str, tagged: str, arguments: list[str] | None, variables: dict[str, Any]) -> Program:
    program, otherwise, own = image(tagged.partition(":")[0])
    given_by = {key: str(value) for key, value in {**own, **variables}.items()}
    return Program(where, (program, *(arguments if arguments is not None else otherwise)), given_by)


def _of_compose(names: list[str]) -> Iterator[Program]:
    files = [documents(HERE / name)[0]["services"] for name in names]
    for service, first in files[0].items():
        if str(first["image"]).partition(":")[0] not in CONTAINERFILES:
            continue
        variables = {
            key: value for file in files for key, value in file.get(service, {}).get("environment", {}).items()
        }
        filled = {key: re.sub(r"\$\{\w+:\?[^}]*\}", "example:9093", str(value)) for key, value in variables.items()}
        yield _program(f"{names[-1]}: {service}", first["image"], first.get("command"), filled)


def _of_kubernetes(path: Path, document: dict[str, Any]) -> Iterator[Program]:
    for pod in pods(document):
        for container in pod["containers"]:
            variables = {entry["name"]: entry.get("value", "pod-0") for entry in container.get("env", [])}
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] == "residual-settings"
                variables = {**env_file(BASE / "residual.env"), **variables}
            yield _program(f"{path.name}: {container['name']}", container["image"], container.get("args"), variables)


def _of_systemd(path: Path) -> Program:
    lines = [line.replace("%i", "a").partition("=") for line in path.read_text().splitlines()]
    variables: dict[str, str] = {}
    for key, _, value in lines:
        if key == "EnvironmentFile" and not value.startswith("-"):
            variables |= env_file(HERE / "systemd" / Path(value).name)
        elif key == "Environment":
            variables |= dict(word.split("=", 1) for word in shlex.split(value))
    words = shlex.split(next(value for key, _, value in lines if key == "ExecStart"))
    return Program(path.name, (Path(words[0]).name, *words[1:]), variables)


def pods(document: Any) -> Iterator[dict[str, Any]]:
    """The pods of a manifest, however deep they lie."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for value in document.values():
            yield from pods(value)


def registered(registry: CollectorRegistry) -> Iterator[str]:
    """Names of the series that a registry shows, also of those that have no label's value yet."""
    collectors: set[Collector] = set(registry._collector_to_names)
    for collector in collectors:
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            if isinstance(collector, Counter):
                yield f"{family.name}_total"
            elif isinstance(collector, Gauge):
                yield family.name
            elif isinstance(collector, (Histogram, ArrayHistogram)):
                yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
            else:
                raise TypeError(f"{family.name} is of a kind that is not known here")


# -- checks: each yields what is wrong ---------------------------------------------------------------------------------


def wrong_with(program: Program) -> str | None:
    """What the program would say of its command line and its variables, or None."""
    settings = SETTINGS.get((program.arguments[0], program.arguments[1]))
    if settings is None:
        return f"{program.where}: {' '.join(program.arguments[:2])} is not known here"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _environment(program.variables):
            namespace = PARSERS[program.arguments[0]]().parse_args(program.arguments[1:])
            settings.load(given(namespace, settings), namespace.config)
    except SystemExit:
        return f"{program.where}: {said.getvalue().splitlines()[-1]}"
    except ResidualError as error:
        return f"{program.where}: {error}"
    return None


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in before:
        if name.upper().startswith("RESIDUAL_"):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def command_lines() -> Iterator[str]:
    """Flags, variables and their values."""
    for program in programs():
        wrong = wrong_with(program)
        if wrong:
            yield wrong


def variables_in_words() -> Iterator[str]:
    """Variables in comments, too, are such as some program reads."""
    read: tuple[type[Settings], ...] = (*SETTINGS.values(), FitSettings)
    known = {name for one in read for name in one.variables()}
    for path in sorted(HERE.rglob("*")):
        if (
            path.is_file()
            and "kafka" not in path.parts
            and path.suffix in (".yaml", ".env", ".service", ".Containerfile")
        ):
            for name in sorted(set(re.findall(r"RESIDUAL_[A-Z_]*[A-Z]\b(?!_)", path.read_text())) - known):
                yield f"{path.relative_to(HERE)}: no program reads {name}"


def unknown_metrics(text: str) -> list[str]:
    """Names of metrics in a text that neither detectors nor notices show."""
    known = {*registered(Metrics().registry), *registered(NotifyMetrics().registry)}
    return sorted(set(re.findall(r"\bresidual_[a-z0-9_]+", text)) - known)


def metrics() -> Iterator[str]:
    """What rules, their tests and the dashboard ask for exists."""
    for path in (RULES, *(RULES.with_name(name) for name in RULE_TESTS), DASHBOARD):
        for name in unknown_metrics(path.read_text()):
            yield f"{path.name}: nothing shows {name}"


def rules() -> Iterator[str]:
    """Every alert says how bad it is, what it means and what to do, and is tested."""
    tests = "".join(RULES.with_name(name).read_text() for name in RULE_TESTS)
    headings = anchors(RUNBOOK.read_text()) if RUNBOOK.is_file() else None
    names = [rule["alert"] for group in documents(RULES)[0]["groups"] for rule in group["rules"]]
    for group in documents(RULES)[0]["groups"]:
        for rule in group["rules"]:
            name, notes = rule["alert"], rule.get("annotations", {})
            if rule.get("labels", {}).get("severity") not in SEVERITIES:
                yield f"{name}: the severity is none of {', '.join(SEVERITIES)}"
            for key in ("summary", "description", "runbook_url"):
                if not notes.get(key):
                    yield f"{name}: there is no {key}"
            place, _, anchor = notes.get("runbook_url", "").partition("#")
            if place != "docs/runbook.md" or not re.fullmatch(r"[a-z-]+", anchor):
                yield f"{name}: the runbook's address is docs/runbook.md#…"
            elif headings is not None and anchor not in headings:
                yield f"{name}: docs/runbook.md has no section #{anchor}"
            if f'alertname="{name}"' not in tests:
                yield f"{name}: it has no test"
            if names.count(name) > 1:
                yield f"{name}: there are two"


def anchors(markdown: str) -> set[str]:
    """What a Markdown file's headings can be linked to by."""
    titles = re.findall(r"^#+ +(.+?) *$", markdown, re.M)
    named = re.findall(r"<a (?:id|name)=\"([^\"]+)\"", markdown)
    return {*named, *(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)}


def dashboard() -> Iterator[str]:
    """Panels that Grafana can show: numbered, beside each other, each with a question."""
    board = json.loads(DASHBOARD.read_text())
    for key in ("title", "uid", "schemaVersion", "panels", "templating", "time"):
        if key not in board:
            yield f"{DASHBOARD.name}: there is no {key}"
    numbers = [panel["id"] for panel in board["panels"]]
    if len(set(numbers)) != len(numbers):
        yield f"{DASHBOARD.name}: two panels have one number"
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        if cells & taken or at["x"] + at["w"] > 24:
            yield f"{DASHBOARD.name}: {panel['title']} lies over another panel or the edge"
        taken |= cells
        if panel["type"] != "row" and not all(target["expr"] for target in panel["targets"]):
            yield f"{DASHBOARD.name}: {panel['title']} asks nothing"


def invalid(document: dict[str, Any], where: str) -> Iterator[str]:
    """What Kubernetes' schema has against a manifest."""
    if document["apiVersion"] in FOREIGN:
        return
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{where}: {document['kind']} {document['metadata']['name']}: {error.message}"
    except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
        yield f"{where}: {error}"


def manifests() -> Iterator[str]:
    """Kubernetes' schema, of the files as they are; overlays are patches, and looked at once they are built."""
    for path in sorted(BASE.glob("*.yaml")):
        for document in documents(path):
            yield from invalid(document, path.name)
    listed = {*documents(BASE / "kustomization.yaml")[0]["resources"], "kustomization.yaml"}
    for name in sorted({path.name for path in BASE.glob("*.yaml")} ^ listed):
        yield f"kustomization.yaml: {name} is listed and not there, or there and not listed"


def compose() -> Iterator[str]:
    """The schema of the Compose specification, which check-jsonschema brings."""
    files = [str(path) for path in sorted(HERE.glob("compose*.yaml"))]
    yield from _run("-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files, program=sys.executable)


CHECKS: tuple[Callable[[], Iterator[str]], ...] = (
    command_lines, variables_in_words, metrics, rules, dashboard, manifests, compose,
)  # fmt: skip


# -- tools -------------------------------------------------------------------------------------------------------------


def _run(*arguments: str, program: str, where: Path = HERE) -> Iterator[str]:
    done = subprocess.run([program, *arguments], cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"{Path(program).name} {' '.join(arguments)}:\n{done.stdout}{done.stderr}".rstrip()


def _tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=str(Path.home() / "go" / "bin"))


def kustomize(program: str) -> Iterator[str]:
    """Base and overlays, built; kubectl has a kustomize of its own."""
    verb = "kustomize" if Path(program).name == "kubectl" else "build"
    for folder in (BASE, *(BASE.parent / "overlays" / name for name in OVERLAYS)):
        done = subprocess.run([program, verb, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{folder.name}: {done.stderr.strip()}"
            continue
        for document in yaml.safe_load_all(done.stdout):
            yield from invalid(document, f"{folder.name}, built")


def promtool(program: str) -> Iterator[str]:
    """Rules, their tests, the scrape example."""
    folder = RULES.parent
    yield from _run("check", "rules", RULES.name, program=program, where=folder)
    yield from _run("test", "rules", *RULE_TESTS, program=program, where=folder)
    yield from _run("check", "config", "--syntax-only", "prometheus.yaml", program=program, where=folder)


def amtool(program: str) -> Iterator[str]:
    """Alertmanager's example."""
    yield from _run("check-config", "alertmanager/alertmanager.yaml", program=program)


def systemd(program: str) -> Iterator[str]:
    """Units, with a program in them that is there: it looks for it."""
    with tempfile.TemporaryDirectory(prefix="residual-units-") as folder:
        units = [*(HERE / "systemd").glob("*.service"), *(HERE / "systemd").glob("*.timer")]
        for unit in units:
            text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.M)
            (Path(folder) / unit.name).write_text(text)
        command = [program, "verify", "--man=no", *(f"./{unit.name}" for unit in units)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        # an unknown key is a warning to it; what it says of units of the machine is not ours
        said = [line for line in done.stderr.splitlines() if "residual-" in line]
        if done.returncode or said:
            yield "systemd-analyze verify:\n" + "\n".join(said or [done.stderr.strip()])


def hadolint(program: str) -> Iterator[str]:
    """Container files. DL3008: Debian keeps one version of a package, so a pin breaks; DL3006: the base is named."""
    files = [f"containers/{name}" for name in CONTAINERFILES.values()]
    yield from _run("--ignore", "DL3008", "--ignore", "DL3006", *files, program=program)


TOOLS: tuple[tuple[tuple[str, ...], Callable[[str], Iterator[str]]], ...] = (
    (("kustomize", "kubectl"), kustomize),
    (("promtool",), promtool),
    (("amtool",), amtool),
    (("systemd-analyze",), systemd),
    (("hadolint",), hadolint),
)


def main() -> int:
    """Run all checks; returns the exit code."""
    wrong = [f"deploy: {line}" for check in CHECKS for line in check()]
    for names, check in TOOLS:
        program = next(filter(None, map(_tool, names)), None)
        if program is None:
            print(f"{' or '.join(names)}: not installed, skipped")
        else:
            wrong += check(program)
    print("\n".join(wrong) or "deploy: all well", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
