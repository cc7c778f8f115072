"""A model as a folder: ``model.onnx``, ``manifest.json``, ``streams.npz`` and what the trainer adds (``report.html``).

Nothing in it is pickled. A folder is replaced whole: written beside its place, then renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from detector.engine.model import Model, StreamValues
from detector.engine.tails import Tail
from schemas.errors import ModelError, UserError
from schemas.manifest import Manifest

GRAPH = "model.onnx"
MANIFEST = "manifest.json"
STREAMS = "streams.npz"


def read_model(path: str | Path) -> Model:
    """The model in a folder. Raises ModelError where it is none, is damaged, or has another format version."""
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}: make one with `trainer fit … --out {folder}`")
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        graph = (folder / GRAPH).read_bytes()
        streams = _unpack((folder / STREAMS).read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is no model folder: {Path(error.filename).name} is missing") from error
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{folder / MANIFEST}: {where}: {first['msg']}: fit the model again") from error
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{folder / STREAMS} is damaged ({error}): fit the model again") from error
    if hashlib.sha256(graph).hexdigest() != manifest.graph_sha256:
        raise ModelError(f"{folder / GRAPH} is not the graph that {MANIFEST} names: fit the model again")
    sizes = {len(streams.names), *streams.threshold.shape, *streams.factor.shape}
    if streams.loc.shape != (len(streams.names), len(manifest.channels)) or len(sizes) > 1:
        raise ModelError(f"{folder / STREAMS} does not fit {MANIFEST}: fit the model again")
    return Model(manifest, graph, streams)


def check_target(path: str | Path) -> None:
    """Raises UserError unless a model may be written to this folder: it is absent, empty or a model folder.

    A model folder is one that holds a manifest of ours; another program's file of that name does not make it one.
    """
    folder = Path(path)
    if folder.is_dir():
        names = {entry.name for entry in folder.iterdir()}
        if names and not (MANIFEST in names and _is_manifest(folder / MANIFEST)):
            raise UserError(f"{folder} is not empty and no model folder: name another --out or empty it")
    elif folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} is not a folder: name another --out")
    elif not folder.absolute().parent.is_dir():
        raise UserError(f"{folder.absolute().parent} does not exist: make it, or name another --out")


def _is_manifest(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"format_version", "graph_sha256"} <= found.keys()


def write_model(model: Model, path: str | Path, extra: Mapping[str, bytes] | None = None) -> None:
    """Write a model folder, replacing the model that is there; ``extra``: further files by name."""
    check_target(path)
    folder = Path(path).resolve()  # behind a link, the folder it means
    files = {
        GRAPH: model.graph,
        STREAMS: _pack(model.streams),
        **(extra or {}),
        MANIFEST: model.manifest.model_dump_json(indent=2).encode() + b"\n",
    }
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


def _unpack(data: bytes) -> StreamValues:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return StreamValues(
            names=tuple(str(name) for name in arrays["names"]),
            loc=arrays["loc"],
            scale=arrays["scale"],
            threshold=arrays["threshold"],
            factor=arrays["factor"],
            group_loc=arrays["group_loc"],
            group_scale=arrays["group_scale"],
            noise=arrays.get("noise"),  # of a model fitted before there was any
            tail=Tail(arrays["tail_level"], arrays["tail_rate"]),
            tail_score=arrays["tail_score"],
            tail_p=arrays["tail_p"],
        )
