"""``make chaos SEEDS=a-b``: plays schedules over a real Kafka and enters what came of them in the ledger.

Exit codes: 0 all equal to the oracle; 1 some are not; 2 something is missing on this machine; 130 interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "deploy" / "kafka")]

from broker import BrokerError, Missing  # noqa: E402
from integration.chaos import ledger  # noqa: E402
from integration.chaos.director import Outcome  # noqa: E402
from integration.chaos.lanes import Task, play  # noqa: E402
from integration.chaos.replica import PROTECTIONS  # noqa: E402
from integration.chaos.schedule import schedule  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Play schedules; returns the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)  # as ctrl-C: nothing is left running, nor lying about
    code, commit = ledger.code_hash(), ledger.commit()
    seeds = list(options.seeds)
    if not options.again and options.without is None:
        done = ledger.equal_seeds(ledger.read(), code) & set(seeds)
        seeds = [seed for seed in seeds if seed not in done]
        if done:
            print(f"{len(done)} schedules are in the ledger as equal for this code ({code}): not run again")
    bad = []
    folder = Path(tempfile.mkdtemp(prefix="residual-chaos-"))
    try:
        tasks = [Task(seed, options.without, options.loud) for seed in seeds]
        for number, (task, outcome) in enumerate(play(tasks, folder, options.lanes) if tasks else (), 1):
            seed, one = task.seed, schedule(task.seed)
            print(f"{number}/{len(seeds)} {_said(seed, outcome)}", flush=True)
            if outcome.result != ledger.EQUAL:
                bad.append(seed)
                _explain(seed, outcome)
            if options.without is None:
                seconds = round(outcome.seconds, 1)
                ledger.append(ledger.Line(seed, one.kind, one.faults, code, commit, outcome.result, seconds))
    except Missing as missing:
        print(f"chaos: {missing}", file=sys.stderr)
        return 2
    except BrokerError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("chaos: interrupted; what was run is in the ledger", file=sys.stderr)
        return 130
    finally:
        if not any(folder.glob("*/seed-*")):
            shutil.rmtree(folder, ignore_errors=True)
    if options.without is None:
        _count(code, options.seeds)
    if bad:
        print(f"{len(bad)} of {len(seeds)} schedules are not as they should be: {', '.join(map(str, sorted(bad)))}")
    return 1 if bad else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _said(seed: int, outcome: Outcome) -> str:
    one = schedule(seed)
    came = f"{len(outcome.struck)} of {len(one.strikes)} strikes, {outcome.alerts} alerts, {outcome.seconds:.1f} s"
    return f"seed {seed}, {one.kind} ({'; '.join(one.faults)}): {outcome.result} ({came})"


def _explain(seed: int, outcome: Outcome) -> None:
    for line in outcome.details[:5]:
        print(f"    {line[:1000]}")
    if len(outcome.details) > 5:
        print(f"    … and {len(outcome.details) - 5} more")
    print(f"    its logs are in {outcome.folder}; alone: make chaos SEEDS={seed}-{seed} CHAOS_ARGS=--again", flush=True)


def _count(code: str, seeds: range) -> None:
    """By kind, what the ledger says of these seeds and this code."""
    newest = {line.seed: line for line in ledger.read() if line.code == code and line.seed in seeds}
    kinds = Counter(line.kind for line in newest.values())
    equal = Counter(line.kind for line in newest.values() if line.result == ledger.EQUAL)
    for kind, count in sorted(kinds.items()):
        print(f"{kind:>18}: {equal[kind]} of {count} equal")
    print(f"{'all':>18}: {equal.total()} of {kinds.total()} equal, code {code}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description="Plays schedules of faults over a real Kafka.")
    parser.add_argument("seeds", type=_seeds, help="A-B: the first and the last; or one")
    parser.add_argument("--again", action="store_true", help="also those that the ledger has as equal for this code")
    parser.add_argument("--lanes", type=int, default=3, help="schedules at a time; default 3")
    parser.add_argument(
        "--without", choices=sorted(PROTECTIONS),
        help="take one protection out, to see that it is missed; nothing is entered in the ledger",
    )  # fmt: skip
    parser.add_argument("--loud", action="store_true", help="the processes' logs hold what the Kafka client does, too")
    return parser


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        found = range(0)
    if not found or found[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: seeds are written as 1-300")
    return found


if __name__ == "__main__":
    sys.exit(main())
