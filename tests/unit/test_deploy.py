"""What lies in deploy/ holds together and fits the programs, and `deploy/check.py` would notice if it did not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from detector.adapters.health import Health, HealthServer
from detector.adapters.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("residual_deploy_check", DEPLOY / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


check = _load()

PODS = [
    pod
    for path in sorted(check.BASE.glob("*.yaml"))
    for document in check.documents(path)
    for pod in check.pods(document)
]
SERVICES: dict[str, Any] = check.documents(DEPLOY / "compose.yaml")[0]["services"]


@pytest.mark.parametrize("of", check.CHECKS, ids=lambda of: of.__name__)
def test_nothing_is_wrong(of: Callable[[], Iterator[str]]) -> None:
    assert list(of()) == []


def test_every_program_is_started_somewhere_by_each() -> None:
    started = {(program.where.partition(":")[0], program.arguments[:2]) for program in check.programs()}
    for wheres in (
        ("compose.yaml",) * 4,
        ("compose.secured.yaml",) * 4,
        ("detector.yaml", "notify.yaml", "page.yaml", "retrain.yaml"),
        ("residual-detector@.service", "residual-notify.service", "residual-page.service", "residual-retrain.service"),
    ):
        assert set(zip(wheres, check.SETTINGS, strict=True)) <= started


@pytest.mark.parametrize(("change", "said"), [
    ({"arguments": ("detector", "run", "--no-such-flag")}, "unrecognized arguments: --no-such-flag"),
    ({"arguments": ("detector", "walk")}, "detector walk is not known here"),
    ({"variables": {"RESIDUAL_GROUPID": "x"}}, "did you mean RESIDUAL_GROUP_ID"),
    ({"variables": {"RESIDUAL_BATCH_SIZE": "many"}}, "RESIDUAL_BATCH_SIZE"),
    ({"variables": {"RESIDUAL_SASL_USERNAME": "me"}}, "sasl_username is set"),
])  # fmt: skip
def test_a_slip_in_a_command_line_is_found(change: dict[str, Any], said: str) -> None:
    program = check.Program("here", ("detector", "run"), {})
    assert check.wrong_with(program) is None
    assert said in check.wrong_with(replace(program, **change))


def test_a_metric_that_nothing_shows_is_found() -> None:
    known = "rate(residual_batch_stage_seconds_bucket[1m]) + residual_dead_letters_total + residual_lag_records"
    assert check.unknown_metrics(known) == []
    assert check.unknown_metrics("residual_dead_letters + residual_lags") == ["residual_dead_letters", "residual_lags"]


def test_all_series_that_a_scrape_shows_are_known() -> None:
    metrics = Metrics()
    metrics.dead_letters.labels("empty").inc()
    shown = {s.name for family in metrics.registry.collect() for s in family.samples if not s.name.endswith("_created")}
    assert shown <= set(check.registered(metrics.registry))


def test_a_manifest_that_kubernetes_refuses_is_found() -> None:
    document = check.documents(check.BASE / "detector.yaml")[0]
    document["spec"]["replica"] = document["spec"].pop("replicas")
    assert "replica" in " ".join(check.invalid(document, "here"))


def test_a_heading_is_linked_to_as_github_does() -> None:
    assert check.anchors("# Lag\n\n## No readings: silence\n") == {"lag", "no-readings-silence"}


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_pods_may_do_little(pod: dict[str, Any]) -> None:
    inside = pod["securityContext"]
    assert inside["runAsNonRoot"]
    assert inside["runAsUser"] == 10001
    assert inside["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert pod["terminationGracePeriodSeconds"] >= 30
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        mounted = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
        assert mounted["tmp"]["mountPath"] == "/tmp"


def test_labels_find_their_pods() -> None:
    documents = [document for path in sorted(check.BASE.glob("*.yaml")) for document in check.documents(path)]
    labels = [
        d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] in ("StatefulSet", "Deployment")
    ]
    selecting = [d for d in documents if d["kind"] in ("Service", "PodDisruptionBudget")]
    assert len(selecting) == 3
    for document in selecting:
        selector = document["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        assert sum(wanted.items() <= own.items() for own in labels) == 1
    named = next(d for d in documents if d["kind"] == "StatefulSet")
    assert named["spec"]["serviceName"] in {d["metadata"]["name"] for d in selecting if d["kind"] == "Service"}


def test_a_replica_is_named_after_its_pod() -> None:
    detector = next(pod["containers"][0] for pod in PODS if pod["containers"][0]["name"] == "detector")
    assert detector["env"] == [
        {"name": "RESIDUAL_REPLICA_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    ]
    probes = {name: detector[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_the_night_is_never_there_twice() -> None:
    night = check.documents(check.BASE / "retrain.yaml")[0]["spec"]
    assert night["concurrencyPolicy"] == "Forbid"
    assert {"name": "models", "mountPath": "/models"} in next(check.pods(night))["containers"][0]["volumeMounts"]


def test_there_are_no_more_replicas_than_partitions() -> None:
    scaled = check.documents(check.BASE.parent / "overlays" / "autoscale" / "scaled-object.yaml")[0]["spec"]
    (trigger,) = scaled["triggers"]
    variables = check.env_file(check.BASE / "residual.env")
    assert trigger["metadata"]["allowIdleConsumers"] == "false"
    assert trigger["metadata"]["topic"] == variables["RESIDUAL_READINGS_TOPIC"]
    assert trigger["metadata"]["consumerGroup"] == variables["RESIDUAL_GROUP_ID"]
    assert trigger["metadata"]["bootstrapServers"] == variables["RESIDUAL_BOOTSTRAP_SERVERS"]
    assert 1 < scaled["minReplicaCount"] <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_of_compose_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert service["read_only"] is (name not in ("broker", "topics"))
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if service["image"].startswith("residual-"):
        assert service["user"] == "10001:10001"
    assert ":" in service["image"]
    assert not service["image"].endswith(":latest")


@pytest.mark.parametrize("name", sorted(check.CONTAINERFILES.values()))
def test_images_run_as_nobody_and_hear_sigterm(name: str) -> None:
    text = (DEPLOY / "containers" / name).read_text()
    last = text[text.rindex("\nFROM ") :]
    assert "\nUSER 10001:10001\n" in last
    assert last.count("\nENTRYPOINT [") == last.count("ENTRYPOINT") == 1  # a shell would keep signals to itself
    assert "HEALTHCHECK" in last
    copied = {
        word
        for line in text.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    sent = (DEPLOY / "containers" / f"{name}.dockerignore").read_text().splitlines()
    assert sent.index("*") < sent.index("!pyproject.toml")
    assert {f"!{word}" for word in copied} == {line for line in sent if line.startswith("!")}
    assert all((DEPLOY.parent / word).exists() for word in copied)


def test_extras_of_the_images_exist() -> None:
    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (DEPLOY / "containers" / "detector.Containerfile").read_text()
    more = next(line for line in text.splitlines() if line.startswith("ARG MORE=")).removeprefix("ARG MORE=")
    assert {*more.split(","), "cpu", "gpu", "trainer"} <= extras.keys()
    assert "torch" not in " ".join(word for name in more.split(",") for word in extras[name])


def test_units_start_again_where_that_helps() -> None:
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        keys = dict(
            line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")
        )
        assert keys["Restart"] == "on-failure"
        assert "2" in keys["RestartPreventExitStatus"].split()
        assert (keys["NoNewPrivileges"], keys["ProtectSystem"], keys["User"]) == ("yes", "strict", "residual")
        if keys["Type"] != "oneshot":  # systemd refuses it there
            assert keys["RestartForceExitStatus"] == "75"


def test_no_host_of_an_index_or_a_registry_is_named() -> None:
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and "kafka" not in path.relative_to(DEPLOY).parts and path.suffix != ".pyc":
            assert "index-url =" not in path.read_text()
            assert "https://pypi" not in path.read_text()


def test_the_rules_are_for_the_jobs_that_are_scraped() -> None:
    scraped = {
        job["job_name"] for job in yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    }
    assert scraped == {group["name"] for group in check.documents(check.RULES)[0]["groups"]}


def test_the_dashboard_asks_one_source() -> None:
    board = json.loads(check.DASHBOARD.read_text())
    sources = {panel["datasource"]["uid"] for panel in board["panels"] if panel["type"] != "row"}
    assert sources == {"${datasource}"}


@pytest.fixture
def health() -> Iterator[tuple[Health, str]]:
    health = Health(limit_s=30)
    with HealthServer("127.0.0.1:0", Metrics().registry, health) as server:
        yield health, f"127.0.0.1:{server.port}"


def _healthy(address: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "containers" / "healthy.py"), address]
    proxied = {"http_proxy": "http://127.0.0.1:1", "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=proxied)


def test_the_health_check_of_a_container(health: tuple[Health, str], monkeypatch: pytest.MonkeyPatch) -> None:
    state, address = health
    done = _healthy(address)
    assert (done.returncode, done.stdout) == (0, "alive\n")
    monkeypatch.setattr(state, "_limit_s", -1.0)
    done = _healthy(address)
    assert done.returncode == 1
    assert "no progress" in done.stdout
    done = _healthy("127.0.0.1:1")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
