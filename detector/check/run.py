"""The checks in their order: each that fails for good ends it, since what follows needs it."""

from __future__ import annotations

import time
from collections.abc import Callable

from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_rights import check_rights, of_detector
from detector.adapters.kafka_sample import sample
from detector.adapters.kafka_security import client_settings
from detector.adapters.kafka_topics import COMMANDS_PARTITIONS, Topics, partition_counts
from detector.check.data import looked_at
from detector.check.finding import Finding, State, shown
from detector.engine.model import Model
from detector.loading import load_engine
from detector.run import decoder_of
from schemas.errors import TemporaryError, UserError
from schemas.settings import DetectorSettings

#: Records that are looked at.
MOST = 100


def check(settings: DetectorSettings, wait_s: float, say: Callable[[str], None] = print) -> int:
    """Look, and say what was found on one screen. Returns the exit code: 0 well, 2 something to fix, 75 no broker."""
    found: list[Finding] = []

    def tell(*findings: Finding) -> None:
        for finding in findings:
            found.append(finding)
            say(shown(finding))

    model = _model(settings, tell)
    try:
        _kafka(settings, wait_s, model, tell)
    except TemporaryError as error:
        tell(Finding("broker", State.FIX, str(error)))
        return error.exit_code
    except UserError as error:
        tell(Finding("kafka", State.FIX, str(error)))
    wrong = sum(finding.state is State.FIX for finding in found)
    say(f"\n{wrong} to put right" if wrong else "\nall well: `detector run` with the same flags would watch this")
    return 2 if wrong else 0


def _model(settings: DetectorSettings, tell: Callable[[Finding], None]) -> Model | None:
    try:
        model = load_engine(settings).model
    except UserError as error:
        tell(Finding("model", State.FIX, str(error)))
        return None
    manifest = model.manifest
    what = f"images of {manifest.frame}" if manifest.frame else f"{len(manifest.channels)} channels"
    tell(Finding(
        "model", State.WELL,
        f"{settings.model}: {manifest.model}, {what}, learned from {manifest.training.streams} streams up to "
        f"{manifest.training.end}",
    ))  # fmt: skip
    return model


def _kafka(settings: DetectorSettings, wait_s: float, model: Model | None, tell: Callable[..., None]) -> None:
    clients = Clients(settings.bootstrap_servers, "residual-check", client_settings(settings))
    topics = Topics(
        settings.readings_topic, settings.alerts_topic, settings.dead_letters_topic, settings.state_topic_name,
        settings.commands_topic_name, settings.scores_topic,
    )  # fmt: skip
    deadline = time.monotonic() + settings.startup_timeout
    with clients.administering(deadline, "looking for the topics") as admin:
        version = ".".join(map(str, admin._manager.broker_version))
        tell(Finding("broker", State.WELL, f"{settings.bootstrap_servers} answers, Kafka {version} or newer"))
        how = settings.security_protocol + (f", {settings.sasl_mechanism}" if settings.sasl_mechanism else "")
        tell(Finding("login", State.WELL, f"accepted ({how})"))
        check_rights(admin, of_detector(topics))
        counts = partition_counts(admin, topics)
        tell(*_topics(topics, counts))
    if topics.readings not in counts:
        return
    tell(Finding("rights", State.WELL, "to the topics that are there"))
    taken = sample(clients, topics.readings, counts[topics.readings], MOST, wait_s, settings.startup_timeout)
    if model is not None:
        tell(*looked_at(taken, decoder_of(settings, model.manifest), model, settings))
    else:
        tell(Finding("records", State.NOTE, f"{taken.count} are there to look at, once there is a model"))


def _topics(topics: Topics, counts: dict[str, int]) -> list[Finding]:
    readings = topics.readings
    if readings not in counts:
        return [Finding("topics", State.FIX, f"there is no topic {readings}", "name another with --readings-topic")]
    found = [Finding("topics", State.WELL, f"{readings}: {counts[readings]} partitions")]
    own = [topics.alerts, topics.dead_letters, topics.state, topics.commands]
    missing = [name for name in (*own, topics.scores) if name is not None and name not in counts]
    if missing:
        found.append(Finding("topics", State.NOTE, f"{', '.join(missing)}: not there yet; made at the first start"))
    if counts.get(topics.state, 0) > counts[readings]:
        found.append(Finding(
            "topics", State.FIX, f"{topics.state} has {counts[topics.state]} partitions, more than {readings}",
            "name another with --state-topic",
        ))  # fmt: skip
    if counts.get(topics.commands, COMMANDS_PARTITIONS) != COMMANDS_PARTITIONS:
        found.append(Finding(
            "topics", State.FIX, f"{topics.commands} must have one partition", "name another with --commands-topic"
        ))  # fmt: skip
    return found
