"""One nightly run: from the topics to a version that serves, or a reason why not.

1. Read the readings of a span of event time, and what is known of it: incidents, verdicts, silences, planned stops.
   Where the version that serves has left its band, it is taken back first.
2. Leave out what was not normal, and what still stands out. Refuse where too little is left.
3. Hold the newest part out. Fit on the rest: from the champion's weights, anew, and window PCA.
4. The contest, on what was held out; then what the winner can see, which must not be less than others can.
5. Store the winner; let it serve where the contest says so and ``promote`` is auto. Remove old versions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from detector.adapters.files import Table
from detector.adapters.folder import read_file, read_model, write_model
from detector.adapters.store import Store
from detector.adapters.texts import coded
from detector.engine.model import Model
from schemas.champion import Champion, Promotion
from schemas.contest import Contest, Role
from schemas.drift import Drift
from schemas.errors import DataError, ModelError, ParityError, SettingsError, UserError
from schemas.manifest import Channel
from schemas.promise import DAY_S
from trainer.data import read_catalogue
from trainer.detectability.gate import Requirement, gated
from trainer.detectability.measure import measure
from trainer.detectability.result import Detectability
from trainer.models import MODELS, PLUS
from trainer.normal import Drop, faults_of, normal
from trainer.page import PAGE_FILE, render
from trainer.page.contest import CONTEST_PAGE, contenders_in_words, render_contest
from trainer.pipeline import Learned, learn
from trainer.report import DATA_FILE
from trainer.retrain.band import band_of
from trainer.retrain.contest import Entrant, decide
from trainer.retrain.drift import drifts, tell
from trainer.retrain.ground import Ground
from trainer.retrain.past import Past, described, read_past
from trainer.retrain.promised import promised, promised_rate
from trainer.retrain.protection import versions_in_use
from trainer.retrain.settings import RetrainSettings
from trainer.retrain.trim import trim
from trainer.settings import AUTO, FitSettings
from trainer.sign import private_key, sign
from trainer.track import part_of
from trainer.warm import WEIGHTS

CONTEST = "contest.json"

#: Who promotes by itself.
BY = "trainer retrain"

#: The model that every other one has to beat.
BASELINE = "pca"

#: Days that a look for drift is about: the newest beside the others.
LOOK_DAYS = 5

#: Readings of a stream that move its state before the held-out ones.
HISTORY = 20_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Night:
    """What came of it."""

    contest: Contest
    version: str | None
    """Of the winner, where it was stored."""
    promoted: bool
    left_out: Mapping[str, int]
    """Readings by the reason why they were not learned from."""
    unsettled: tuple[str, ...]
    """Streams of which so much stands out that nothing was trimmed."""
    drifted: Sequence[Drift] = ()
    rolled_back: str | None = None
    """The version that was taken back first, since it opened far more incidents than it had promised."""


@dataclass(frozen=True)
class Material:
    """What a night learns from."""

    settled: Table
    """All of it, before anything was trimmed."""
    learned: Table
    held_out: Table
    left_out: Mapping[str, int]
    unsettled: tuple[str, ...]


def retrain(settings: RetrainSettings, fitting: FitSettings, say: Say = lambda _: None) -> Night:
    """One run. Raises UserError and TemporaryError, and nothing has changed then.

    ``fitting``: what models are fitted with; where it names none, the champion's architecture.
    """
    store = Store(settings.store)
    if settings.sign_key is not None:
        private_key(settings.sign_key)  # before an hour of training, not after
    required = [Requirement.parse(text) for text in settings.detect]
    fitting = fitting.model_copy(update={"group": settings.group})
    with ExitStack() as stack:
        champion = store.champion(settings.group)
        served = stack.enter_context(_served(store, settings.group, champion, say))
        fitting = fitting.model_copy(update=_machine(served, fitting))
        past = read_past(settings, served.model.manifest.channel_names if served else None, say)
        past = past.gated(fitting.off_when, fitting.settle)
        past = past.known_to(served.model) if served else past
        rolled_back = None
        if served is not None and champion is not None and _left_its_band(served, champion, past, settings, say):
            rolled_back = champion.now.version
            champion = store.rollback(settings.group, None, BY, "it left its band", seen=_still(champion))
            served = stack.enter_context(_served(store, settings.group, champion, say))
        material = select(past, served.model if served else None, settings, fitting, say)
        drifted = drifts(material.settled, served.model, settings.group) if served else []
        tell(drifted, settings, say)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="residual-retrain-")))
        ground = Ground(
            _newest(material.learned, HISTORY), material.held_out, past.readings,
            faults_of(past.incidents), fitting.seed, past.moved,
        )  # fmt: skip
        entered = Field(served, fitting, say, past.readings).enter(material.learned, ground)
        contest = decide(ground, [one.entrant for one in entered], _groups(ground, settings))
        seen = _seen(entered, contest, ground, say)
        contest = gated(contest, seen, required)
        for line in contenders_in_words(contest.contenders):
            say(line)
        for reason in contest.decision.reasons:
            say(f"{'promoted' if contest.decision.promote else 'not promoted'}: {reason}")
        learned = entered[contest.winner].learned
        version = None
        if learned is not None and settings.promote != "never":
            version = _stored(store, settings, _with(learned, seen[contest.winner]), contest, champion, folder)
            say(f"stored as {version}")
        promoted = version is not None and contest.decision.promote and settings.promote == "auto"
        if promoted and version is not None:
            store.promote(
                settings.group, version, BY, "; ".join(contest.decision.reasons)[:2000], seen=_still(champion)
            )
            say(f"{version} serves the group {settings.group}")
        gone = store.prune(settings.group, versions_in_use(settings, store, say), settings.keep)
        if gone:
            say(f"removed old versions: {', '.join(gone)}")
        return Night(contest, version, promoted, material.left_out, material.unsettled, drifted, rolled_back)


def has_drifted(settings: RetrainSettings, say: Say = lambda _: None) -> bool:
    """A look between two nights, at some days: whether something has drifted, which is told. Raises likewise."""
    store = Store(settings.store)
    with ExitStack() as stack:
        served = stack.enter_context(_served(store, settings.group, store.champion(settings.group), say))
        if served is None:
            return False
        lately = settings.model_copy(update={"span": min(settings.span, LOOK_DAYS * DAY_S)})
        manifest = served.model.manifest
        past = read_past(lately, manifest.channel_names).gated(manifest.off_when, manifest.settle_s)
        past = past.known_to(served.model)
        found = drifts(normal(past.readings, past.reasons(settings.margin)).table, served.model, settings.group)
        tell(found, settings, say)
        return bool(found)


@dataclass(frozen=True)
class Served:
    """The version that serves."""

    id: str
    folder: Path
    model: Model


@contextmanager
def _served(store: Store, group: str, champion: Champion | None, say: Say) -> Iterator[Served | None]:
    """The champion's folder and model, while the block lasts."""
    if champion is None:
        say(f"the group {group} has no champion yet: the first one is fitted")
        yield None
        return
    with store.local(group, champion.now.version) as folder:
        model = read_model(folder)
        if model.manifest.frame is not None:
            raise SettingsError(f"the group {group} is of images: `trainer retrain` is for sensors; fit it by hand")
        say(f"the champion is {champion.now.version}, {model.manifest.model}")
        yield Served(champion.now.version, folder, model)


def _left_its_band(served: Served, champion: Champion, past: Past, settings: RetrainSettings, say: Say) -> bool:
    """What serves was promoted by a run like this, and has opened far more incidents since than it had promised."""
    told = served.folder / CONTEST
    mine = champion.now.by == BY and champion.now.parent is not None
    if not (settings.rollback_after and mine and told.is_file()):
        return False
    try:
        contest = Contest.model_validate_json(read_file(served.folder, CONTEST, served.model.manifest))
    except ValidationError as error:
        raise ModelError(f"{told} cannot be read: {str(error).splitlines()[0]}") from error
    band = band_of(served.model, contest, past)
    gone = band.left and band.days * DAY_S >= settings.rollback_after
    if band.left:
        say(f"{served.id}: {band}" + ("; it is taken back" if gone else "; it is watched for a while yet"))
    return gone


# -- 2: what to learn from --------------------------------------------------------------------------------------------


def select(
    past: Past, champion: Model | None, settings: RetrainSettings, fitting: FitSettings, say: Say = lambda _: None
) -> Material:
    """What is left to learn from, and its newest part. Raises DataError where it is too little."""
    past = _but_promised(past, champion, say)
    chosen = normal(past.readings, past.reasons(settings.margin))
    left_out = {drop.value: count for drop, count in chosen.dropped.items()}
    say(f"left out: {described(left_out)}; {chosen.share:.0%} is left")
    _check_enough(chosen.share, settings)
    judge = champion or _baseline(chosen.table, fitting)
    trimmed = trim(chosen.table, judge, settings.trim, past.moved)
    if trimmed.by_stream:
        left_out["standing out"] = sum(trimmed.by_stream.values())
        say(f"trimmed, since they stand out: {described(trimmed.by_stream)}")
    for stream in trimmed.unsettled:
        say(f"warning: more than {settings.trim:.0%} of {stream} stands out: it is another normal, and left as it is")
    there = len(past.readings) - chosen.dropped.get(Drop.OFF, 0)
    _check_enough(len(trimmed.kept) / max(there, 1), settings)
    times = trimmed.table.times
    cut = np.quantile(times, 1 - settings.held_out, method="lower")
    old, new = (trimmed.table.rows(np.flatnonzero(which)) for which in (times < cut, times >= cut))
    return Material(chosen.table, old, new, left_out, trimmed.unsettled)


def _but_promised(past: Past, champion: Model | None, say: Say) -> Past:
    """Without the incidents that the champion had promised to be wrong about."""
    if champion is None:
        return past
    gone = set(promised(past.incidents, promised_rate(champion), past.start, past.end))
    if gone:
        say(f"{len(gone)} minor incidents are as many as were promised: taken for false alarms, and learned")
    return replace(past, incidents=[one for one in past.incidents if one not in gone])


def _check_enough(share: float, settings: RetrainSettings) -> None:
    if share < settings.least:
        raise DataError(
            f"only {share:.0%} of the readings were normal, and {settings.least:.0%} are needed (setting least): "
            "nothing is learned; look after the incidents, or take a longer --span"
        )


def _baseline(table: Table, fitting: FitSettings) -> Model:
    """Window PCA of the readings themselves, where there is no champion to judge them."""
    return learn(table, fitting.model_copy(update={"model": BASELINE})).model


def _newest(table: Table, count: int) -> Table:
    """The newest readings of each stream."""
    order = np.argsort(-table.times, kind="stable")
    codes = coded(table.streams).codes[order]
    by_stream = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[by_stream], codes[by_stream])
    rank = np.empty(len(table), np.int64)
    rank[order[by_stream]] = np.arange(len(table)) - starts
    return table.rows(np.flatnonzero(rank < count))


# -- 3: who takes part ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entered:
    """A model in the contest, and what was learned for it; None of the champion."""

    entrant: Entrant
    learned: Learned | None


class Field:
    """Who takes part: the champion, a challenger from its weights, one that is fitted anew, window PCA."""

    def __init__(self, served: Served | None, fitting: FitSettings, say: Say, heard: Table | None = None) -> None:
        self._served, self._say, self._heard = served, say, heard
        self._fitting = fitting.model_copy(update=_inherited(served, fitting))
        self._catalogue = _catalogue(served, fitting)

    def enter(self, table: Table, ground: Ground) -> list[Entered]:
        """All of them, fitted on the table and gone over the ground."""
        found: list[Entered] = []
        if self._served is not None:
            served = self._served
            self._say("the champion goes over the ground")
            found.append(Entered(Entrant("champion", served.model, ground.run(served.model), version=served.id), None))
        for fitting in self._challengers():
            learned = self._attempt(table, fitting)
            if learned is not None:
                found.append(self._entered("challenger", learned, ground))
        plain = {"model": BASELINE, "init_from": None, "window": None, "score": "newest"}
        baseline = learn(table, self._fitting.model_copy(update=plain), self._catalogue, heard=self._heard)
        return [*found, self._entered("baseline", baseline, ground)]

    def _challengers(self) -> Iterator[FitSettings]:
        began = time.monotonic()
        if self._warm:
            assert self._served is not None
            yield self._fitting.model_copy(update={"init_from": str(self._served.folder)})
            if time.monotonic() - began > self._fitting.fit_limit:
                self._say("no challenger is fitted anew: the time for fitting is over (setting fit_limit)")
                return
        if self._fitting.model != BASELINE:  # which takes part in any case
            yield self._fitting.model_copy(update={"init_from": None})

    @property
    def _warm(self) -> bool:
        """The champion has weights to start from, of the architecture that is wanted."""
        served, wanted = self._served, self._fitting.model
        if served is None or wanted in (AUTO, BASELINE) or served.model.manifest.model != wanted:
            return False
        return (served.folder / WEIGHTS).is_file()

    def _attempt(self, table: Table, fitting: FitSettings) -> Learned | None:
        """A challenger; None, and a word, where it cannot be fitted: the others are enough."""
        try:
            learned = learn(table, fitting, self._catalogue, heard=self._heard)
        except (UserError, ParityError) as error:
            if isinstance(error, DataError):
                raise
            self._say(f"warning: no challenger {fitting.model}: {error}")
            return None
        how = "from the champion's weights" if fitting.init_from else "fitted anew"
        self._say(f"a challenger {learned.model.manifest.model}, {how}, goes over the ground")
        return learned

    def _entered(self, role: Role, learned: Learned, ground: Ground) -> Entered:
        cost = float(learned.report.parameters or 0)
        return Entered(Entrant(role, learned.model, ground.run(learned.model), cost), learned)


def _machine(served: Served | None, fitting: FitSettings) -> dict[str, object]:
    """When machines are off, where the settings leave it open."""
    if served is None:
        return {}
    was = {"off_when": served.model.manifest.off_when, "settle": served.model.manifest.settle_s}
    return {name: value for name, value in was.items() if name not in fitting.model_fields_set}


def _inherited(served: Served | None, fitting: FitSettings) -> dict[str, object]:
    """What the settings leave open is as it was."""
    if served is None:
        return {}
    manifest, chosen = served.model.manifest, fitting.model_fields_set
    found: dict[str, object] = {}
    if "model" not in chosen and all(name in MODELS for name in manifest.model.split("+")):
        found["model"] = manifest.model
    if "window" not in chosen and "model" in found and PLUS not in manifest.model:
        found["window"] = manifest.window
    if "false_alarms" not in chosen:
        found["false_alarms"] = manifest.calibration.false_alarms
    return found


def _catalogue(served: Served | None, fitting: FitSettings) -> list[Channel] | None:
    """What is told of each channel: by the catalogue that is named now, else by the one of the champion."""
    if fitting.channels is not None:
        return read_catalogue(fitting.channels)
    if served is None:
        return None
    return [
        Channel(name=c.name, unit=c.unit, min=c.lowest, max=c.highest, direction=c.direction, weight=c.weight)
        for c in served.model.manifest.channels
    ]


def _seen(entered: Sequence[Entered], contest: Contest, ground: Ground, say: Say) -> dict[int, Detectability | None]:
    """What the winner can see, and those that it is compared with: what serves, and window PCA. By their places."""
    roles = [one.entrant.role for one in entered]
    asked = sorted({contest.winner, *(n for n, role in enumerate(roles) if role != "challenger")})
    say("what the winner can see is measured, and what those can that it is compared with")
    track = part_of(ground.track.history, ground.track.held_out)
    return {n: measure(entered[n].entrant.model, track) for n in asked}


def _with(learned: Learned, seen: Detectability | None) -> Learned:
    return replace(learned, report=learned.report.model_copy(update={"detectability": seen}))


def _groups(ground: Ground, settings: RetrainSettings) -> dict[str, frozenset[str]]:
    found = {
        pattern: frozenset(stream for stream in ground.streams if fnmatchcase(stream, pattern))
        for pattern in settings.apart
    }
    return {pattern: streams for pattern, streams in found.items() if streams}


# -- 5: what is kept --------------------------------------------------------------------------------------------------


def _stored(
    store: Store,
    settings: RetrainSettings,
    learned: Learned,
    contest: Contest,
    champion: Champion | None,
    folder: Path,
) -> str:
    manifest = learned.model.manifest.model_copy(
        update={"parent": champion.now.version if champion else None, "group": settings.group}
    )
    model = replace(learned.model, manifest=manifest)
    write_model(model, folder / "winner", {
        DATA_FILE: learned.report.model_dump_json().encode() + b"\n",
        PAGE_FILE: render(model, learned.report).encode(),
        CONTEST: contest.model_dump_json(indent=2).encode() + b"\n",
        CONTEST_PAGE: render_contest(contest).encode(),
        WEIGHTS: learned.weights,
    })  # fmt: skip
    if settings.sign_key is not None:
        sign(str(folder / "winner"), settings.sign_key)
    return store.add(settings.group, folder / "winner")


def _still(champion: Champion | None) -> Callable[[Champion | None], None]:
    """Raises UserError where another version serves by now: the contest was against the one before."""
    served: Promotion | None = champion.now if champion else None

    def look(now: Champion | None) -> None:
        if (now.now if now else None) != served:
            raise UserError(
                "another version was promoted while this one was trained: it is stored, and not promoted; look with "
                "`trainer models`"
            )

    return look
