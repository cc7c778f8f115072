"""Command-line flags made from settings: one flag per field, so that every setting is a flag and none is forgotten."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic.fields import FieldInfo

from schemas.errors import SettingsError
from schemas.security import SECRETS, Security
from schemas.settings import Settings


def add_flags(parser: argparse.ArgumentParser, settings: type[Settings], only: Iterable[str] | None = None) -> None:
    """Add ``--config`` and a flag for each field (``only`` these, where given).

    Only flags that are given appear in the parsed namespace: the others stay with the environment, the file, the
    default. A secret has no flag, see ``refuse_secrets``.
    """
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings (residual.toml where there is one)")
    security: argparse._ArgumentGroup | None = None
    chosen = set(only) if only is not None else set(settings.model_fields)
    # what is inherited comes first among the fields, and is asked for last
    for name, field in sorted(settings.model_fields.items(), key=lambda item: item[0] in Security.model_fields):
        if name not in chosen or settings.is_secret(name):
            continue
        if name in Security.model_fields and security is None:
            security = parser.add_argument_group("security of the connection to Kafka")
        place = security or parser
        flag = "--" + (field.alias or name).replace("_", "-")
        text = _help(field, settings.variable(name))
        if field.annotation is bool and field.default:
            place.add_argument(
                flag, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )  # fmt: skip
        elif field.annotation is bool:
            place.add_argument(flag, dest=name, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            choices = _choices(field)
            metavar = None if choices else (field.alias or name).upper().replace("_", "-")
            place.add_argument(
                flag, dest=name, default=argparse.SUPPRESS, metavar=metavar, choices=choices, help=text
            )  # fmt: skip
    if security is not None:
        named = ", ".join(settings.variable(name) for name in SECRETS if name in settings.model_fields)
        security.description = f"Secrets are no flags, which all can read: {named}, or a file that holds one."


def refuse_secrets(arguments: Iterable[str], settings: type[Settings]) -> None:
    """Raises SettingsError for a secret that is given as a flag, or nearly: it is not accepted, and not shown.

    Every user of the machine reads the arguments of every process. Looked for before they are parsed, since argparse
    takes the beginning of a flag for the flag, and prints what it does not know.
    """
    flags = {"--" + (field.alias or name).replace("_", "-"): name for name, field in settings.model_fields.items()}
    for argument in arguments:
        written = argument.partition("=")[0]
        nearest = difflib.get_close_matches(written, flags, 1, 0.8) if written.startswith("--") else []
        if nearest and written not in flags.keys() - {flag for flag, name in flags.items() if settings.is_secret(name)}:
            name = flags[nearest[0]]
            if settings.is_secret(name):
                raise SettingsError(
                    f"{nearest[0]}: what stands on a command line can be read by every user of this machine, and may "
                    f"be kept in your shell's history now; give it by {settings.variable(name)}, in the settings file, "
                    f"or as a file by {nearest[0]}-file"
                )


def given(namespace: argparse.Namespace, settings: type[Settings]) -> dict[str, Any]:
    """The settings among the parsed flags, by field name."""
    return {name: value for name, value in vars(namespace).items() if name in settings.model_fields}


def _choices(field: FieldInfo) -> tuple[Any, ...] | None:
    """The words of a Literal, which may stand beside None."""
    if "Literal" not in str(field.annotation):
        return None
    inner = [get_args(part) or (part,) for part in get_args(field.annotation)]
    return tuple(word for words in inner for word in words if isinstance(word, str))


def _help(field: FieldInfo, variable: str) -> str:
    default = (
        ""
        if field.default is None or isinstance(field.default, bool)
        else f"; default {field.default:g}"
        if isinstance(field.default, float)
        else f"; default {field.default}"
    )
    return f"{field.description}{default} [{variable}]".replace("%", "%%")
