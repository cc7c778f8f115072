"""Which versions a detector may still need: those that the journals of its state topic name."""

from __future__ import annotations

from collections.abc import Callable

from detector.adapters.kafka_security import client_settings
from detector.adapters.store import Store
from detector.history import read_values
from detector.journal import InForce, read_entry
from schemas.errors import ResidualError, TopicError
from trainer.retrain.settings import RetrainSettings

Say = Callable[[str], None]


def versions_in_use(settings: RetrainSettings, store: Store, say: Say = lambda _: None) -> list[str]:
    """Versions that some partition's journal names: a replay from there goes by them. All where nobody can tell."""
    found: dict[tuple[int, bytes], str | None] = {}
    try:
        for partition, key, value in read_values(
            settings.bootstrap_servers, f"residual-state-{settings.group_id}",
            timeout_s=settings.startup_timeout, client=client_settings(settings),
        ):  # fmt: skip
            group, _, rest = (key or b"").partition(b"/journal/")
            if group.decode(errors="replace") == settings.group and rest.isdigit():
                what = read_entry(int(rest), value).what if value else None
                found[partition, rest] = what.version if isinstance(what, InForce) else None
    except TopicError:
        return []  # no detector has run from this store yet
    except (ResidualError, ValueError, KeyError, TypeError) as error:
        say(f"warning: no old version is removed, since it cannot be told what is in use: {error}")
        return store.versions(settings.group)
    hashes = {version[:12] for version in found.values() if version is not None}
    return [name for name in store.versions(settings.group) if name.rpartition("-")[2] in hashes]
