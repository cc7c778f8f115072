"""``python -m trainer.demo``: the demo's command line."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from schemas.errors import ResidualError
from trainer.demo.console import Console
from trainer.demo.plan import Plan

#: Exit code of a run that was stopped by ctrl-C, as shells have it.
STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 every fault was caught, 1 one was missed, else as everywhere."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)  # it warns of its own pauses while every core is busy
    console = Console()
    try:
        with _ended_like_ctrl_c():
            plan = Plan.of(options.seconds or (20.0 if options.fast else 90.0), options.fast)
            from trainer.demo.run import Demo  # here: --help and a wrong flag need not wait for PyTorch

            demo = Demo(plan, Path(options.out), options.bootstrap_servers, console)
            verdict = demo.run()
    except KeyboardInterrupt:
        console.say("stopped: the faults' processes have ended and their memory and files are freed")
        return STOPPED
    except ResidualError as error:
        console.say(f"demo: {error}")
        return error.exit_code
    for line in demo.closing(verdict):
        console.say(line)
    return 1 if verdict.missed else 0


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and a closed terminal end the run as ctrl-C does, so that faults are cleaned up."""

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.demo",
        description="Watch this machine: learn what is normal, provoke two faults on it (every core busy; a burst of "
        "memory and disk), and show that they are caught and by which sensors. About four minutes. Exit code 0: every "
        "fault was caught; 1: one was missed.",
    )
    parser.add_argument("--seconds", type=float, metavar="N", help="normal stretch to learn from (90; with --fast 20)")
    parser.add_argument("--out", default="demo-out", metavar="DIR", help="folder for the page, readings and model")
    parser.add_argument(
        "--bootstrap-servers", metavar="HOST:PORT", help="run over this Kafka, in topics of its own (else in memory)"
    )
    parser.add_argument("--fast", action="store_true", help="everything short: a test that it works, less of a show")
    return parser


if __name__ == "__main__":
    sys.exit(main())
