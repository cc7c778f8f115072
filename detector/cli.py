"""The command line of the detector. Exit codes: 0 done, 2 yours to put right, 75 try again, 1 a bug."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import logging
import sys
from collections.abc import Sequence

from detector.flags import add_flags, given, refuse_secrets
from detector.logs import start_log
from detector.rehearsal.other import DECIDING
from schemas.command import Verb
from schemas.errors import ResidualError
from schemas.moment import parse_duration
from schemas.notify import NotifySettings
from schemas.page import PageSettings
from schemas.printable import printable
from schemas.security import Security
from schemas.settings import DetectorSettings, Settings

log = logging.getLogger("detector")

#: Of commands that have settings of their own.
OWN_SETTINGS: dict[str, type[Settings]] = {"notify": NotifySettings, "page": PageSettings}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        given_here = sys.argv[1:] if arguments is None else arguments
        refuse_secrets(given_here, OWN_SETTINGS.get(given_here[0] if given_here else "", DetectorSettings))
        namespace = _parser().parse_args(arguments)
        return int(namespace.command(namespace))
    except ResidualError as error:
        with contextlib.suppress(OSError):  # no space left where it is written to: the exit code says it all the same
            print(f"detector: {printable(str(error))}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("detector: interrupted; nothing half written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone: its business
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="detector", description="Scores streams of readings with a fitted model.")
    parser.add_argument("--version", action="version", version=f"residual {importlib.metadata.version('residual')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="watch a Kafka topic and publish alerts",
        description="Watches a Kafka topic and publishes alerts. Every flag is also a variable and a key of the file.",
        epilog="Exit codes: 0 stopped or done; 2 something must be changed first; 75 start it again; 1 a bug.",
    )
    add_flags(run, DetectorSettings)
    run.set_defaults(command=_run)
    score = commands.add_parser(
        "score",
        help="score files offline, with the same engine and the same alerts",
        description="Scores files exactly as `detector run` would score the same readings.",
        epilog="DATA: PATH, or STREAM=PATH for a file without a stream column; CSV, CSV.gz or Parquet with a column "
        "`timestamp`; of images an .npz or a folder. Exit codes: 0 done; 2 something must be changed first; 1 a bug.",
    )
    score.add_argument("data", nargs="+", metavar="DATA", help="readings to score, merged by time where several")
    score.add_argument("--out", required=True, metavar="FILE", help="scores.csv to write: one row per reading")
    score.add_argument("--alerts", metavar="FILE", help="alerts.jsonl to write: the events, one a line")
    score.add_argument(
        "--history", action="append", default=[], metavar="DATA",
        help="readings that come before: they move the state and publish nothing; may be given several times",
    )  # fmt: skip
    score.add_argument("--report", metavar="FILE", help="page.html to write: what would have been sent, with pictures")
    score.add_argument(
        "--compare", metavar="KEY=VALUE,…", help="other settings that the page sets beside these, such as incident_k=3"
    )
    score.add_argument("--stream", default="default", metavar="NAME", help="stream of a file that names none; default")
    score.add_argument(
        "--partitions", type=int, default=1, metavar="N", help="place streams on N partitions as Kafka would; 1"
    )
    only = ("model", "trusted_keys", "threads", "log_level", "log_format", *DECIDING)
    add_flags(score, DetectorSettings, only)
    score.set_defaults(command=_score)
    _add_tell(commands)
    _add_around(commands)
    return parser


def _add_around(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What stands around the detector: a look before, who is told, a page."""
    check = commands.add_parser(
        "check",
        help="is the broker there, may I, does the model see my data",
        description="Looks at broker, login, rights and topics, and explains up to 100 records: the newest that are "
        "there and what arrives. Joins no group, commits nothing, makes no topic. Flags as of `detector run`.",
        epilog="Exit codes: 0 all is well; 2 something is to be put right; 75 no broker answers; 1 a bug.",
    )
    check.add_argument("--wait", type=_duration, default=10.0, metavar="TIME", help="how long to look; default 10s")
    add_flags(check, DetectorSettings)
    check.set_defaults(command=_check)
    notify = commands.add_parser(
        "notify",
        help="tell people of alerts: Alertmanager, a webhook, a line each",
        description="Reads the alerts topic in a group of its own and tells of each incident once: by itself, as one "
        "of many that broke together, or in the day's digest.",
        epilog="Exit codes: 0 stopped or done; 2 something must be changed first; 75 start it again; 1 a bug.",
    )
    add_flags(notify, NotifySettings)
    notify.set_defaults(command=_notify)
    page = commands.add_parser(
        "page",
        help="a page to look at: incidents, their why, live scores, and a place to judge them",
        description="Follows alerts, scores and verdicts, and serves a page of them; verdicts and accepted levels go "
        "to their topics. It has no login, and listens on this machine only unless told otherwise.",
        epilog="Exit codes: 0 stopped; 2 something must be changed first; 75 start it again; 1 a bug.",
    )
    add_flags(page, PageSettings)
    page.set_defaults(command=_page)


def _add_tell(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tell = commands.add_parser(
        "tell",
        help="tell the detectors of a group that a stream's level is normal now, or that it is still wrong",
        description="accept: this level is normal now; it becomes the baseline, and incidents about it end. confirm: "
        "it is still wrong; it must not become the baseline, and where it already has, that is taken back.",
        epilog="Prints the command's id once the broker has it; detectors obey within about a second. Exit codes: 0 "
        "told; 2 something must be changed first; 75 try again; 1 a bug.",
    )
    tell.add_argument("verb", choices=[verb.value for verb in Verb], help="what is said")
    tell.add_argument("stream", metavar="STREAM", help="the stream that is meant")
    tell.add_argument(
        "--channel", action="append", default=[], metavar="NAME",
        help="a channel that is meant; may be given several times; without it all are",
    )  # fmt: skip
    tell.add_argument("--note", default="", metavar="TEXT", help="why, for whoever reads it later")
    tell.add_argument("--by", metavar="NAME", help="who says so")
    tell.add_argument("--id", metavar="ID", help="what was told under this id counts once; default a fresh one")
    only = ("bootstrap_servers", "group_id", "commands_topic", "startup_timeout", "log_level", *Security.model_fields)
    add_flags(tell, DetectorSettings, only)
    tell.set_defaults(command=_tell)


def _settings(namespace: argparse.Namespace) -> DetectorSettings:
    settings = DetectorSettings.load(given(namespace, DetectorSettings), namespace.config)
    start_log(settings.log_level, settings.log_format)
    return settings


def _run(namespace: argparse.Namespace) -> int:
    from detector.run import run  # here: offline scoring needs no Kafka client

    run(_settings(namespace))
    return 0


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _check(namespace: argparse.Namespace) -> int:
    from detector.check.run import check  # here: offline scoring needs no Kafka client

    settings = DetectorSettings.load(given(namespace, DetectorSettings), namespace.config)
    start_log("warning" if settings.log_level == "info" else settings.log_level, settings.log_format)
    return check(settings, namespace.wait)


def _notify(namespace: argparse.Namespace) -> int:
    from detector.notify.run import notify  # here: offline scoring needs no Kafka client

    settings = NotifySettings.load(given(namespace, NotifySettings), namespace.config)
    start_log(settings.log_level, settings.log_format)
    notify(settings)
    return 0


def _page(namespace: argparse.Namespace) -> int:
    from detector.live.run import page  # here: offline scoring needs no Kafka client

    settings = PageSettings.load(given(namespace, PageSettings), namespace.config)
    start_log(settings.log_level, settings.log_format)
    page(settings)
    return 0


def _tell(namespace: argparse.Namespace) -> int:
    from detector.tell import tell  # here: offline scoring needs no Kafka client

    said = {"channels": namespace.channel, "note": namespace.note, "by": namespace.by, "name": namespace.id}
    print(tell(_settings(namespace), namespace.verb, namespace.stream, **said))
    return 0


def _score(namespace: argparse.Namespace) -> int:
    from detector.score import score

    score(
        _settings(namespace),
        namespace.data,
        out=namespace.out,
        alerts=namespace.alerts,
        history=namespace.history,
        default_stream=namespace.stream,
        partitions=namespace.partitions,
        report=namespace.report,
        compare=namespace.compare,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
