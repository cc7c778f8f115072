"""Images from files: an ``.npz`` of arrays, or a folder of PNG and JPEG files.

An image is a reading whose values are its pixels: float32, row by row, the bands of a pixel beside each other, in the
source's own units (0–255 for 8-bit files). Grey pictures have one band, all others three (red, green, blue).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.adapters.columns import is_stream, shorten
from detector.adapters.files import Table, split_source
from detector.adapters.overflow import chunks, empty
from detector.adapters.pillow import BadPictureError, one_line, picture, require_pillow
from schemas.errors import DataError
from schemas.frame import Frame
from schemas.moment import SECOND_NS, format_time, parse_time

PIXELS, TIMESTAMP, STREAM = "x", "timestamp", "stream"
SUFFIXES = (".png", ".jpg", ".jpeg")

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one or more files in the order of one log."""

    frame: Frame
    table: Table
    """One row per image, ``values`` ``[N, H·W·bands]``, NaN where missing; pixels have no names: no channels."""


@dataclass(frozen=True, slots=True)
class _Source:
    """One file or folder: ``times`` ``[N]``, ``values`` ``[N, P]``; ``streams`` None: it names none."""

    path: str
    frame: Frame
    streams: list[str] | None
    times: NDArray[np.int64]
    timestamps: list[str]
    values: Floats
    counted: bool = False
    """It names no times: they are counted from 1970 on."""


def are_images(sources: Sequence[str]) -> bool:
    """The sources are images: folders or ``.npz``. Raises DataError where only some of them are."""
    paths = [split_source(source)[1] for source in sources]
    images = [os.path.isdir(path) or path.lower().endswith(".npz") for path in paths]
    if any(images) and not all(images):
        raise DataError(
            f"{paths[images.index(True)]} holds images and {paths[images.index(False)]} does not: name only one kind"
        )
    return any(images)


def read_images(sources: Sequence[str], default_stream: str = "default", frame: Frame | None = None) -> Images:
    """The images of ``sources``, each ``PATH`` or ``STREAM=PATH``, as one log; ``frame``: the size that they must have.

    They are merged on their heads by timestamp, ties in the order given; the images of one source keep their order, and
    the streams of a folder, which run side by side, are merged in the same way. Without times image i of a file, or of
    a stream's folder, is at i seconds after 1970-01-01.

    Raises DataError with the path where something cannot be read or is of another size, UserError where a folder is
    given and Pillow is not installed.
    """
    found: list[_Source] = []
    for stream, path in map(split_source, sources):
        parts = _read_folder(path) if os.path.isdir(path) else [_read_npz(path)]
        if stream is not None and any(part.streams is not None for part in parts):
            raise DataError(f"{path}: it names its streams itself: name it without {stream}=")
        name = default_stream if stream is None else stream
        found += [_named(part, name) for part in parts]
    if not found:
        raise DataError("no data: name at least one .npz or folder of images")
    for part in found:
        if frame is not None and part.frame != frame:
            raise _other_size(part.path, part.frame, "what the model was fitted on", frame)
        if part.frame != found[0].frame:
            raise _other_size(part.path, part.frame, found[0].path, found[0].frame)
    _check_times(found)
    return Images(found[0].frame, _merge(found))


def _check_times(parts: Sequence[_Source]) -> None:
    """Two sources without times begin at the same one: in one stream half of their images would repeat a time."""
    seen: dict[str, str] = {}
    for part in parts:
        for stream in set(part.streams or ()) if part.counted else ():
            if stream in seen:
                raise DataError(
                    f"{seen[stream]} and {part.path} name no times and are both of the stream {shorten(stream)}: write "
                    "STREAM=PATH for each, or give the images times"
                )
            seen[stream] = part.path


def _named(part: _Source, stream: str) -> _Source:
    if part.streams is not None:
        return part
    return replace(part, streams=[stream] * len(part.times))


def _merge(parts: Sequence[_Source]) -> Table:
    """The log: a stable sort by the greatest time that each part has shown so far (see ``files.read_table``)."""
    streams = [name for part in parts for name in part.streams or ()]
    timestamps = [text for part in parts for text in part.timestamps]
    times = np.concatenate([part.times for part in parts])
    if len(parts) == 1:
        return Table(streams, times, parts[0].values, timestamps, ())
    heads = np.concatenate([np.maximum.accumulate(part.times) for part in parts])
    order = np.argsort(heads, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    values, first = empty((len(order), parts[0].frame.values), np.float32), 0
    for part in parts:
        for chunk in chunks(*part.values.shape):
            values[place[first + chunk.start : first + chunk.stop]] = part.values[chunk]
        first += len(part.values)
    rows = order.tolist()
    return Table([streams[i] for i in rows], times[order], values, [timestamps[i] for i in rows], ())


def _other_size(path: str, frame: Frame, first: str, wanted: Frame) -> DataError:
    return DataError(f"{path} is {frame}, {first} is {wanted}: make all images one size")


# An .npz


def _read_npz(path: str) -> _Source:
    """``x[N,H,W]`` or ``x[N,H,W,bands]``, perhaps ``timestamp[N]`` and ``stream[N]``; other arrays are ignored."""
    arrays = _arrays(path)
    if PIXELS not in arrays:
        raise DataError(
            f"{path}: it holds no array {PIXELS}: save the images as {PIXELS}[N,H,W] or {PIXELS}[N,H,W,bands]"
        )
    values, frame = _pixels(path, arrays[PIXELS])
    N = len(values)
    for name in (TIMESTAMP, STREAM):
        if name in arrays and arrays[name].shape != (N,):
            raise DataError(
                f"{path}: {name} has the shape {arrays[name].shape}: make it one for each of the {N} images"
            )
    streams = _streams(path, arrays[STREAM]) if STREAM in arrays else None
    if TIMESTAMP not in arrays:
        return _Source(path, frame, streams, *_counted(N), values, counted=True)
    return _Source(path, frame, streams, *_times(path, arrays[TIMESTAMP]), values)


def _arrays(path: str) -> dict[str, NDArray[Any]]:
    """Those of the arrays that are known, read without pickle."""
    try:
        with open(path, "rb") as raw:  # opened here: NumPy leaves a file open that is no .npz
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise BadPictureError("one array without a name")
            return {name: file[name] for name in (PIXELS, TIMESTAMP, STREAM) if name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: split it into several files") from error
    except Exception as error:  # what NumPy and zipfile raise of a damaged file shares no base
        raise DataError(
            f"{path} cannot be read as .npz ({one_line(error)}): is it whole, and made by numpy.savez without objects?"
        ) from error


def _pixels(path: str, x: NDArray[Any]) -> tuple[Floats, Frame]:
    """``[N, H·W·bands]`` and the frame."""
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise DataError(
            f"{path}: {PIXELS} has the shape {x.shape}: make it [N,H,W] or [N,H,W,bands], with at least one"
        )
    if x.dtype.kind not in "buif":
        raise DataError(f"{path}: {PIXELS} is of type {x.dtype}: make it an array of numbers")
    frame = Frame(x.shape[1], x.shape[2], x.shape[3] if x.ndim == 4 else 1)
    with np.errstate(over="ignore"):  # what overflows is refused just below
        values: Floats = np.ascontiguousarray(x, np.float32).reshape(len(x), frame.values)
    bad = np.isinf(values).any(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: {PIXELS}[{int(bad.argmax())}] holds a number that is infinite or beyond 32 bits: "
            "correct it, or write nan where a pixel is missing"
        )
    return values, frame


def _streams(path: str, names: NDArray[Any]) -> list[str]:
    if names.dtype.kind != "U":
        raise DataError(f"{path}: {STREAM} is of type {names.dtype}: make it an array of texts")
    streams: list[str] = names.tolist()
    for i, name in enumerate(streams):
        if not is_stream(name):
            raise DataError(
                f"{path}: {STREAM}[{i}]: {shorten(name)} is not a stream's name: write 1 to 1024 characters"
            )
    return streams


def _counted(count: int) -> tuple[NDArray[np.int64], list[str]]:
    """A second apart, from 1970-01-01 on."""
    times = np.arange(count, dtype=np.int64) * SECOND_NS
    return times, [format_time(ns) for ns in times.tolist()]


def _times(path: str, cells: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Nanoseconds and texts of NumPy's times, of ISO 8601 or of numbers of milliseconds."""
    if cells.dtype.kind == "M":
        ns = cells.astype("datetime64[ns]")
        # a time that does not fit nanoseconds wraps around: it must come back as it was
        fits = (ns.astype(cells.dtype) == cells) & (ns.astype(np.int64) >= 0)
        if not fits.all():
            i = int((~fits).argmax())
            raise _bad_time(path, i, str(cells[i]))
        times: NDArray[np.int64] = ns.astype(np.int64)
        return times, [format_time(t) for t in times.tolist()]
    if cells.dtype.kind not in "iufU":
        raise DataError(
            f"{path}: {TIMESTAMP} is of type {cells.dtype}: make it times, ISO 8601 or milliseconds since 1970"
        )
    found = []
    for i, cell in enumerate(cells.tolist()):
        try:
            found.append(parse_time(cell))
        except (ValueError, OverflowError):
            raise _bad_time(path, i, str(cell)) from None
    return np.array(found, np.int64), [str(cell) for cell in cells.tolist()]


def _bad_time(path: str, i: int, text: str) -> DataError:
    return DataError(
        f"{path}: {TIMESTAMP}[{i}]: {shorten(text)} is not a time between 1970 and 2262: "
        "write ISO 8601, or milliseconds since 1970"
    )


# A folder


def _read_folder(path: str) -> list[_Source]:
    """The folder itself, where it holds the images, else one part for each sub-folder, whose name is its stream.

    Names that begin with a dot and files that are neither PNG nor JPEG are passed over.
    """
    require_pillow(path)
    files, folders = _listed(path)
    if files and folders:
        raise DataError(f"{path} holds both images and folders: move the images into a folder, which is a stream")
    if not folders:
        return [_read_files(path, files, None)]
    parts = []
    for name in folders:
        inner = os.path.join(path, name)
        if not is_stream(name):
            raise DataError(f"{inner}: {shorten(name)} is not a stream's name: rename the folder")
        parts.append(_read_files(inner, _listed(inner)[0], name))
    return parts


def _listed(path: str) -> tuple[list[str], list[str]]:
    """Names of the pictures and of the folders in a folder, each in order of their characters' code points."""
    files, folders = [], []
    try:
        for name in sorted(os.listdir(path)):
            if name.startswith("."):
                continue
            mode = os.stat(os.path.join(path, name)).st_mode
            if stat.S_ISDIR(mode):
                folders.append(name)
            elif name.lower().endswith(SUFFIXES):
                files.append(name)
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    return files, folders


def _read_files(path: str, names: Sequence[str], stream: str | None) -> _Source:
    if not names:
        raise DataError(f"{path} holds no image: put files into it whose names end in {', '.join(SUFFIXES)}")
    first, frame = os.path.join(path, names[0]), None
    values = np.empty((0, 0), np.float32)
    for i, name in enumerate(names):
        file = os.path.join(path, name)
        pixels = _read_picture(file)
        found = Frame(*pixels.shape)
        if frame is None:
            frame, values = found, empty((len(names), found.values), np.float32)
        if found != frame:
            raise _other_size(file, found, first, frame)
        values[i] = pixels.reshape(-1)
    assert frame is not None
    streams = None if stream is None else [stream] * len(names)
    return _Source(path, frame, streams, *_counted(len(names)), values, counted=True)


def _read_picture(path: str) -> Floats:
    try:
        return picture(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except BadPictureError as error:
        raise DataError(f"{path} is no picture ({error}): is it whole, and PNG or JPEG?") from error
