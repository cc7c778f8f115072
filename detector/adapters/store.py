"""The model store: groups of streams, the versions of each group's model, and which of them serves.

    <group>/versions/<id>/     a model folder, immutable; ``manifest.json`` makes it whole
    <group>/champion.json      which version serves, and how that came about

A version's id says when it was stored and what it is; the same folder stored twice is one version. The pointer is
replaced as a whole, and only where it still is what whoever replaces it has seen: of two promotions at the same time
one fails. A store is a folder or ``s3://BUCKET/PREFIX``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from detector.adapters.folder import MANIFEST, read_manifest, read_model
from detector.adapters.places import Folder, Place
from detector.engine.model import Model
from schemas.champion import Champion, GroupName, Promotion, VersionId
from schemas.errors import ModelError, SettingsError, StoreUnavailable
from schemas.manifest import Manifest

VERSIONS = "versions"
POINTER = "champion.json"

#: Promotions that the pointer remembers.
HISTORY = 100

#: What ``prune`` keeps: the newest versions, those that served last or within so long, and what is so young.
KEEP, KEEP_SERVED, SERVED_WITHIN, YOUNG = 10, 3, timedelta(days=30), timedelta(days=7)

_GROUP, _VERSION = TypeAdapter(GroupName), TypeAdapter(VersionId)


@dataclass(frozen=True, slots=True)
class Version:
    """One of a group's models."""

    id: str
    manifest: Manifest
    sha256: str
    """Of the manifest."""


def is_store(url: str) -> bool:
    """Whether ``--model`` names a store and not a model folder."""
    return "://" in url or (Path(url).is_dir() and not (Path(url) / MANIFEST).exists())


class Store:
    """A model store. Methods raise ModelError, AccessError, and StoreUnavailable where trying again may help."""

    def __init__(self, url: str) -> None:
        self._place = _place(url)

    def __str__(self) -> str:
        return str(self._place)

    def groups(self) -> list[str]:
        """The groups that have versions."""
        names = [name for name in self._place.names("") if _fits(_GROUP, name)]
        return [name for name in names if self._place.names(f"{name}/{VERSIONS}")]

    def versions(self, group: str) -> list[str]:
        """The ids of a group's whole versions, oldest first."""
        folder = self._folder(group)
        ids = [name for name in self._place.names(f"{folder}/{VERSIONS}") if _fits(_VERSION, name)]
        return [name for name in ids if self._place.read(f"{folder}/{VERSIONS}/{name}/{MANIFEST}") is not None]

    def version(self, group: str, version: str) -> Version:
        """What a version is."""
        path = f"{self._path(group, version)}/{MANIFEST}"
        found = self._place.read(path)
        if found is None:
            raise ModelError(f"the store {self} has no version {version} of the group {group}: see `trainer models`")
        return Version(version, read_manifest(f"{self}/{path}", found.data), hashlib.sha256(found.data).hexdigest())

    def find(self, group: str, manifest_sha256: str) -> str | None:
        """The version with this manifest."""
        ending = f"-{manifest_sha256[:12]}"
        return next((name for name in reversed(self.versions(group)) if name.endswith(ending)), None)

    @contextmanager
    def local(self, group: str, version: str) -> Iterator[Path]:
        """A version as a folder of this machine, while the block lasts."""
        with self._place.local(self._path(group, version)) as folder:
            yield folder

    def read(self, group: str, version: str, trusted_keys: str | None = None) -> Model:
        """A version's model, see ``read_model``. Raises ModelError where it is of another group, too."""
        with self.local(group, version) as folder:
            model = read_model(folder, trusted_keys)
        if model.manifest.group != group:
            raise ModelError(
                f"{self}: version {version} is a model of the group {model.manifest.group}, not of {group}"
            )
        return model

    def champion(self, group: str) -> Champion | None:
        """Which version serves; None where nothing was promoted yet."""
        return self._pointer(group)[0]

    def add(self, group: str, folder: str | Path, now: datetime | None = None) -> str:
        """Store a model folder as a version, where it is none yet; returns its id.

        Raises ModelError where the folder is no whole model, or one of another group.
        """
        model = read_model(folder)
        if model.manifest.group != group:
            raise ModelError(
                f"{folder} is a model of the group {model.manifest.group}, not of {group}: fit it with "
                f"`--set group={group}`, or promote it to its own"
            )
        known = self.find(group, model.version)
        if known is not None:
            return known
        version = f"{(now or datetime.now(UTC)).astimezone(UTC):%Y%m%dT%H%M%SZ}-{model.version[:12]}"
        files = {file.name: file for file in Path(folder).iterdir() if file.is_file() and not file.name.startswith(".")}
        self._place.add(self._path(group, version), files, MANIFEST)
        return version

    def promote(
        self, group: str, version: str, by: str, why: str = "", now: datetime | None = None,
        seen: Callable[[Champion | None], None] = lambda _: None,
    ) -> Champion:  # fmt: skip
        """Let a version serve. ``seen``: looks at what it replaces, and raises where it must not be.

        Raises StoreUnavailable where somebody else was first.
        """
        sha256 = self.version(group, version).sha256
        before, tag = self._pointer(group)
        seen(before)
        served = before.now.version if before else None
        if served == version and before is not None:
            return before
        return self._point(group, before, tag, Promotion(
            version=version, manifest_sha256=sha256, parent=served, replaced=served, at=_stamp(now), by=by, why=why
        ))  # fmt: skip

    def rollback(
        self, group: str, to: str | None, by: str, why: str = "", now: datetime | None = None,
        seen: Callable[[Champion | None], None] = lambda _: None,
    ) -> Champion:  # fmt: skip
        """Let the version serve again that served before the one that serves, or the one that is named.

        Again and again, it goes further back each time.
        """
        before, tag = self._pointer(group)
        seen(before)
        if before is None:
            raise ModelError(f"the store {self} has no champion of the group {group} to roll back: promote a version")
        target = to or before.now.parent
        if target is None:
            raise ModelError(
                f"there is nothing before {before.now.version} to roll back to: name a version with --to, see "
                "`trainer models`"
            )
        if target == before.now.version:
            raise ModelError(f"{target} serves already: name another version with --to, see `trainer models`")
        earlier = next((p for p in reversed(before.history) if p.version == target), None)
        return self._point(group, before, tag, Promotion(
            version=target, manifest_sha256=self.version(group, target).sha256,
            parent=earlier.parent if earlier else None, replaced=before.now.version, at=_stamp(now), by=by, why=why,
        ))  # fmt: skip

    def prune(
        self, group: str, protected: Collection[str] = (), keep: int = KEEP, now: datetime | None = None
    ) -> list[str]:
        """Remove old versions, and what killed processes left behind; returns what was removed.

        Kept are the newest ``keep``, what serves, what served last or within a month, what is younger than a week, and
        the ``protected`` ones.
        """
        moment = now or datetime.now(UTC)
        champion, ids = self.champion(group), self.versions(group)
        kept = {*protected, *ids[len(ids) - keep :]}
        if champion is not None:
            recent = [p for p in champion.history if moment - datetime.fromisoformat(p.at) <= SERVED_WITHIN]
            # (what was replaced within that time served until then)
            kept |= {v for p in (*champion.history[-KEEP_SERVED:], *recent) for v in (p.version, p.replaced) if v}
        gone = [name for name in ids if name not in kept and moment - _stored(name) > YOUNG]
        for name in gone:
            self._place.remove(self._path(group, name), MANIFEST)
        self._place.sweep(f"{self._folder(group)}/{VERSIONS}")
        return gone

    def _pointer(self, group: str) -> tuple[Champion | None, str | None]:
        path = f"{self._folder(group)}/{POINTER}"
        found = self._place.read(path)
        if found is None:
            return None, None
        try:
            return Champion.model_validate_json(found.data), found.tag
        except ValidationError as error:
            first = error.errors()[0]
            raise ModelError(
                f"{self}/{path} cannot be read ({first['msg']}): put it right, or remove it and promote a version"
            ) from error

    def _point(self, group: str, before: Champion | None, tag: str | None, promotion: Promotion) -> Champion:
        champion = Champion(history=(*(before.history if before else ()), promotion)[-HISTORY:])
        data = champion.model_dump_json(indent=2).encode() + b"\n"
        if not self._place.swap(f"{self._folder(group)}/{POINTER}", data, tag):
            raise StoreUnavailable(
                f"the store {self}: somebody else has promoted a version of the group {group} at the same time: look "
                "with `trainer models`, and try again"
            )
        return champion

    def _folder(self, group: str) -> str:
        if not _fits(_GROUP, group):
            raise SettingsError(f"{group!r} is no name of a group: letters, digits, '_', '-' and '.', at most 100")
        return group

    def _path(self, group: str, version: str) -> str:
        if not _fits(_VERSION, version):
            raise SettingsError(f"{version!r} is no version: see `trainer models`")
        return f"{self._folder(group)}/{VERSIONS}/{version}"


def _place(url: str) -> Place:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", url)
    if scheme is None:
        return Folder(url)
    if scheme[1] == "file":
        return Folder(url.removeprefix("file://"))
    if scheme[1] == "s3":
        from detector.adapters.s3 import Bucket

        return Bucket(url)
    raise SettingsError(f"the store {url}: a store is a folder or s3://BUCKET/PREFIX")


def _fits(kind: TypeAdapter[str], name: str) -> bool:
    try:
        kind.validate_python(name)
    except ValidationError:
        return False
    return True


def _stamp(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _stored(version: str) -> datetime:
    """When a version was stored, as its id says."""
    return datetime.strptime(version.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
