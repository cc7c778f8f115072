"""A model as a folder: ``model.onnx``, ``manifest.json``, ``streams.npz`` and what the trainer adds (``report.html``).

``manifest.json`` holds the SHA-256 of what decides; ``manifest.sig``, where the model was signed, stands for all of it.

Nothing in it is pickled. A folder is replaced whole: written beside its place, then renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from detector.adapters import npz
from detector.adapters.npz import BadArraysError
from detector.adapters.signature import check_signature, read_keys
from detector.engine.graph import MOST_BYTES
from detector.engine.model import Model, StreamValues
from detector.engine.tails import Tail
from schemas.errors import ModelError, UserError
from schemas.manifest import MANIFEST_VERSION, Manifest

GRAPH = "model.onnx"
MANIFEST = "manifest.json"

#: What a model's manifest has, and hardly another program's file of that name.
MANIFEST_KEYS = frozenset({"format_version", "graph_sha256"})
STREAMS = "streams.npz"


#: Bytes of each file, at most; they are read whole.
LIMITS = {MANIFEST: 16 << 20, GRAPH: MOST_BYTES, STREAMS: npz.MOST_BYTES}

#: Bytes of any other file: reports, weights.
LIMIT = 1 << 30

#: Pages can be made again from what else is there (`trainer report`), and decide nothing.
UNHASHED = ".html"


def read_model(path: str | Path, trusted_keys: str | None = None) -> Model:
    """The model in a folder. Raises ModelError where it is none, is damaged, or has another format version.

    Every file is compared with its SHA-256 in the manifest before anything in it is looked at. ``trusted_keys``: file
    or folder of public keys, one of which must have signed the manifest; SettingsError where there are none.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}: make one with `trainer fit … --out {folder}`")
    said = _read(folder / MANIFEST)
    if trusted_keys is not None:
        check_signature(folder, said, read_keys(trusted_keys))
    manifest = read_manifest(folder / MANIFEST, said)
    if trusted_keys is not None and STREAMS not in manifest.files:
        raise ModelError(
            f"{folder} was made before {STREAMS} had its hash in {MANIFEST}, so that its signature does not cover it: "
            "fit the model again"
        )
    graph = _read(folder / GRAPH)
    if hashlib.sha256(graph).hexdigest() != manifest.graph_sha256:
        raise ModelError(f"{folder / GRAPH} is not the graph that {MANIFEST} names: fit the model again")
    packed = read_file(folder, STREAMS, manifest)
    try:
        streams = _unpack(packed, len(manifest.channels))
    except BadArraysError as error:
        raise ModelError(f"{folder / STREAMS} is damaged ({error}): fit the model again") from error
    return Model(manifest, graph, streams, hashlib.sha256(said).hexdigest())


def read_file(folder: str | Path, name: str, manifest: Manifest) -> bytes:
    """A file of a model folder. Raises ModelError where it is not the one that the manifest names, or is missing.

    Manifests of version 2 name no file but the graph.
    """
    place = Path(folder) / name
    data, wanted = _read(place), manifest.files.get(name)
    if wanted is None and manifest.format_version > 2:
        raise ModelError(f"{place} is not a file that {MANIFEST} names: fit the model again")
    if wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
        raise ModelError(f"{place} is not the file that {MANIFEST} names: fit the model again")
    return data


def _read(path: Path) -> bytes:
    """The bytes of an ordinary file that is not absurdly large."""
    most = LIMITS.get(path.name, LIMIT)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, for ever
            raise ModelError(f"{path} is no ordinary file: fit the model again")
        if found.st_size > most:
            raise ModelError(f"{path} has {found.st_size:,} bytes, more than {most:,}: it is no model's")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} is no model folder: {path.name} is missing") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def read_manifest(path: str | Path, said: bytes) -> Manifest:
    """A manifest from its bytes. Raises ModelError, which names ``path``."""
    try:
        return Manifest.model_validate_json(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {where}: {first['msg']}: fit the model again") from error


def check_target(
    path: str | Path, what: str = "model", manifest: str = MANIFEST, keys: frozenset[str] = MANIFEST_KEYS
) -> None:
    """Raises UserError unless a folder may be written there: it is absent, empty or a folder of the same kind.

    ``what``: the kind in words, a folder with a ``manifest`` of ours, a JSON object that has these ``keys``; another
    program's file of that name does not make it one.
    """
    folder = Path(path)
    if folder.is_dir():
        names = {entry.name for entry in folder.iterdir()}
        if names and not (manifest in names and _is_manifest(folder / manifest, keys)):
            raise UserError(f"{folder} is not empty and no {what} folder: name another --out or empty it")
    elif folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} is not a folder: name another --out")
    elif not folder.absolute().parent.is_dir():
        raise UserError(f"{folder.absolute().parent} does not exist: make it, or name another --out")


def _is_manifest(path: Path, keys: frozenset[str]) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and keys <= found.keys()


def write_model(model: Model, path: str | Path, extra: Mapping[str, bytes] | None = None) -> None:
    """Write a model folder, replacing the model that is there; ``extra``: further files by name."""
    check_target(path)
    folder = Path(path).resolve()  # behind a link, the folder it means
    files = {STREAMS: _pack(model.streams), **(extra or {})}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if not name.endswith(UNHASHED)}
    manifest = model.manifest.model_copy(update={"format_version": MANIFEST_VERSION, "files": hashes})
    files |= {GRAPH: model.graph, MANIFEST: manifest.model_dump_json(indent=2).encode() + b"\n"}
    write_files(folder, files)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """A folder of these files, whole or not at all; what was there goes. Raises UserError."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        aside.chmod(0o755)
        for name, data in files.items():
            with (aside / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _replace(aside, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replace(aside: Path, folder: Path) -> None:
    """Rename ``aside`` to ``folder``; what was there goes only when the new one stands in its place."""
    if not folder.exists():
        aside.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(old / folder.name)
    try:
        aside.rename(folder)
    except OSError:
        (old / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _pack(streams: StreamValues) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        names=np.array(streams.names, dtype=np.str_),
        loc=streams.loc,
        scale=streams.scale,
        threshold=streams.threshold,
        factor=streams.factor,
        group_loc=streams.group_loc,
        group_scale=streams.group_scale,
        noise=np.ones_like(streams.group_scale) if streams.noise is None else streams.noise,
        tail_level=streams.tail.levels,
        tail_rate=streams.tail.rates,
        tail_score=streams.tail_score,
        tail_p=streams.tail_p,
    )
    return buffer.getvalue()


#: Arrays of streams.npz: their type (U text, f numbers), and their shape by S streams, C channels, K and T points.
ARRAYS = {
    "names": ("U", "S"), "loc": ("f", "SC"), "scale": ("f", "SC"), "threshold": ("f", "S"), "factor": ("f", "S"),
    "group_loc": ("f", "C"), "group_scale": ("f", "C"), "noise": ("f", "C"),
    "tail_level": ("f", "K"), "tail_rate": ("f", "K"), "tail_score": ("f", "T"), "tail_p": ("f", "T"),
}  # fmt: skip

#: Of a model fitted before there was any.
OPTIONAL = ("noise",)


def _unpack(data: bytes, channels: int) -> StreamValues:
    """Raises BadArraysError where an array is missing, or has another type or shape than ``ARRAYS`` says."""
    arrays = npz.read_arrays(data, ARRAYS)
    sizes = {"C": channels}
    for name, (kind, axes) in ARRAYS.items():
        if name not in arrays:
            if name in OPTIONAL:
                continue
            raise BadArraysError(f"{name} is missing")
        found = arrays[name]
        wanted = tuple(sizes.setdefault(axis, size) for axis, size in zip(axes, found.shape, strict=False))
        if found.dtype.kind != kind or found.ndim != len(axes) or found.shape != wanted:
            raise BadArraysError(f"{name} does not fit {MANIFEST}")
    return StreamValues(
        names=tuple(arrays["names"].tolist()),
        loc=arrays["loc"],
        scale=arrays["scale"],
        threshold=arrays["threshold"],
        factor=arrays["factor"],
        group_loc=arrays["group_loc"],
        group_scale=arrays["group_scale"],
        noise=arrays.get("noise"),
        tail=Tail(arrays["tail_level"], arrays["tail_rate"]),
        tail_score=arrays["tail_score"],
        tail_p=arrays["tail_p"],
    )
