"""Command-line flags made from settings: one flag per field, so that every setting is a flag and none is forgotten."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, get_args

from pydantic.fields import FieldInfo

from schemas.settings import Settings


def add_flags(parser: argparse.ArgumentParser, settings: type[Settings], only: Iterable[str] | None = None) -> None:
    """Add ``--config`` and a flag for each field (``only`` these, where given).

    Only flags that are given appear in the parsed namespace: the others stay with the environment, the file, the
    default.
    """
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings (residual.toml where there is one)")
    chosen = set(only) if only is not None else set(settings.model_fields)
    for name, field in settings.model_fields.items():
        if name not in chosen:
            continue
        flag = "--" + (field.alias or name).replace("_", "-")
        text = _help(field, (field.alias or name).upper())
        if field.annotation is bool:
            parser.add_argument(flag, dest=name, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            choices = get_args(field.annotation) if _is_choice(field) else None
            metavar = None if choices else (field.alias or name).upper().replace("_", "-")
            parser.add_argument(
                flag, dest=name, default=argparse.SUPPRESS, metavar=metavar, choices=choices, help=text
            )  # fmt: skip


def given(namespace: argparse.Namespace, settings: type[Settings]) -> dict[str, Any]:
    """The settings among the parsed flags, by field name."""
    return {name: value for name, value in vars(namespace).items() if name in settings.model_fields}


def _is_choice(field: FieldInfo) -> bool:
    return "Literal" in str(field.annotation)


def _help(field: FieldInfo, variable: str) -> str:
    default = (
        ""
        if field.default in (None, False)
        else f"; default {field.default:g}"
        if isinstance(field.default, float)
        else f"; default {field.default}"
    )
    return f"{field.description}{default} [RESIDUAL_{variable}]".replace("%", "%%")
