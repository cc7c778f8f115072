"""A run of the demo, step by step.

1. Rehearse: fit, export and score once on made-up numbers, so that everything that will run is loaded.
2. Record this host as normal, with the detector (the rehearsal's model) and the plotting at work: they are part of it.
3. Learn from what was recorded, while recording, detecting and plotting go on.
4. Watch with the learned model. The training's load is given time to settle before anything counts.
5. Provoke each fault; wait until its incident has resolved.
6. Judge: was each fault caught, and did anything else raise an alarm?
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.folder import check_target, write_model
from detector.adapters.telemetry import Telemetry
from detector.engine.engine import Engine
from detector.engine.model import Model
from detector.loading import policy
from schemas.alert import EventType
from schemas.errors import ResidualError
from schemas.manifest import Channel
from schemas.moment import SECOND_NS, parse_time
from schemas.settings import DetectorSettings
from trainer.demo import page
from trainer.demo.console import Console, clock, sensor_lines
from trainer.demo.facts import facts
from trainer.demo.faults import Fault, failed, faults, provoked, usable_cores
from trainer.demo.installation import Installation, installation
from trainer.demo.plan import LEAST_THRESHOLD, Plan, detector_settings, fit_settings, raised
from trainer.demo.plot import PANELS, Panel, Picture, draw
from trainer.demo.recorder import Recorder, write_csv
from trainer.demo.sensors import CORES, left_out, watched
from trainer.demo.story import Cause, Incident, Incidents, Provoked, Span, Verdict, judge
from trainer.demo.watch import Watch
from trainer.pipeline import learn

#: Drawn until incidents say which sensors matter.
_FIRST_PANELS = ("cpu.user", "cpu.system", "memory.used", "disk.write", "cpu.switches", "net.received")

#: Seconds between looks at alerts and errors.
_LOOK_S = 0.2

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Learnt:
    """The model, and what it says of the stretch that it learned from: scores ``[N]``, expected values ``[N, C]``."""

    model: Model
    span: Span
    times: NDArray[np.int64]
    score: Floats
    expected: Floats


class Demo:
    """One run. ``run`` gives the verdict."""

    def __init__(self, plan: Plan, folder: Path, servers: str | None, console: Console) -> None:
        page.check_place(folder)
        check_target(folder / "model")
        self._plan, self._folder, self._servers, self._console = plan, folder, servers, console
        self._telemetry = Telemetry(cores=CORES)
        self._channels: tuple[Channel, ...] = watched(self._telemetry.channels, usable_cores())
        self._faults = faults(folder)
        self._detector: DetectorSettings = detector_settings()
        self._incidents = Incidents()
        self._provoked: list[Provoked] = []
        self._watched_from = 0
        self._learnt: Learnt | None = None
        self._recorder: Recorder
        self._where: Installation
        self._watch: Watch
        self._stage = ""

    def run(self) -> Verdict:
        """All steps. Raises ResidualError where one cannot be done."""
        with ExitStack() as stack:
            stack.enter_context(self._last_words())
            self._where = installation(self._servers)
            stack.callback(self._where.close)
            self._console.say(
                f"Residual watches {self._telemetry.stream}: {len(self._channels)} channels, over "
                f"{self._where.name}. The page to look at meanwhile: {self._folder / page.NAME}"
            )
            rehearsal = self._rehearse()  # 1
            self._recorder = stack.enter_context(
                Recorder(self._telemetry, self._channels, self._where.produce, self._plan.interval_s)
            )
            self._watch = Watch(self._where, "rehearsal", rehearsal, self._detector)
            normal_stack = stack.enter_context(ExitStack())
            normal_stack.enter_context(self._watch)
            painter = stack.enter_context(Painter(self._paint, self._plan.redraw_s))
            table = self._record_normal(painter)  # 2
            learnt = self._learn(table)  # 3
            normal_stack.close()
            self._learnt = learnt
            self._watch = stack.enter_context(Watch(self._where, "watch", learnt.model, self._detector))
            self._watch_and_provoke(painter)  # 4, 5
        verdict = self._verdict()  # 6
        page.write(self._folder, self._content(None, verdict))
        return verdict

    # -- the steps ---------------------------------------------------------------------------------------------------

    def _rehearse(self) -> Model:
        self._stage = "loading what will run"
        self._console.begin("loading what will run: PyTorch, ONNX Runtime, the plotting", 10)
        rng, n = np.random.default_rng(0), 220
        times = np.arange(n, dtype=np.int64) * round(self._plan.interval_s * SECOND_NS)
        values = rng.normal(size=(n, len(self._channels))).astype(np.float32)
        table = Table(["rehearsal"] * n, times, values, [""] * n, tuple(c.name for c in self._channels))
        with contextlib.redirect_stderr(io.StringIO()):
            model = learn(table, fit_settings().model_copy(update={"epochs": 3}), self._channels).model
        self._console.end()
        return model

    def _record_normal(self, painter: Painter) -> Table:
        self._pass(f"settling for {2 * self._plan.redraw_s:g} s", 2 * self._plan.redraw_s, painter)
        start = self._recorder.now()
        self._pass("recording what is normal: leave the machine as it is", self._plan.normal_s, painter)
        table = self._recorder.table(start, self._recorder.now())
        write_csv(table, self._folder / "normal.csv")
        return table

    def _learn(self, table: Table) -> Learnt:
        self._stage = "training a convolutional autoencoder"
        self._console.say(f"training a convolutional autoencoder on {len(table)} readings")
        model = raised(learn(table, fit_settings(), self._channels).model, LEAST_THRESHOLD)
        write_model(model, self._folder / "model")
        when = policy(self._detector, model).model_copy(
            update={"lateness": 0.0}
        )  # a score for each row, in their order
        scored = Engine(model, when).process(table.slice(0, len(table)))
        span = Span("learned as normal", int(table.times[0]), int(table.times[-1]))
        return Learnt(model, span, table.times, scored.score, scored.expected)

    def _watch_and_provoke(self, painter: Painter) -> None:
        plan = self._plan
        self._pass("letting the training's load settle", plan.settle_s, painter)
        self._pass("waiting for quiet", plan.wake_s, painter, until=self._quiet)
        self._watched_from = self._recorder.now()
        for fault in self._faults:
            self._pass("watching", plan.quiet_s, painter)
            self._pass("waiting for quiet", plan.wake_s, painter, until=self._quiet)
            self._provoke(fault, painter)
        self._pass("watching", plan.quiet_s, painter)

    def _provoke(self, fault: Fault, painter: Painter) -> None:
        now, plan = self._recorder.now, self._plan
        with provoked(fault, plan.fault_s + 5) as processes:
            start = now()
            self._console.say(f"{clock(start)}  FAULT      {fault.name}: {fault.what}")
            self._provoked.append(Provoked(fault.name, start, start + round(plan.fault_s * SECOND_NS), 2**62))
            self._pass(f"provoking: {fault.name}", plan.fault_s, painter)
            broken = failed(processes)
        end = now()
        self._provoked[-1] = replace(self._provoked[-1], end=end)
        self._console.say(f"{clock(end)}  fault over {fault.name}")
        if broken:
            raise ResidualError(f"the fault '{fault.name}' could not be provoked: one of its processes failed")
        soonest = time.monotonic() + plan.calm_s
        self._pass(
            "waiting for quiet", plan.wake_s, painter, until=lambda: time.monotonic() > soonest and self._quiet()
        )
        self._provoked[-1] = replace(self._provoked[-1], calm=now())

    def _pass(self, title: str, seconds: float, painter: Painter, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, and show what happens meanwhile."""
        if until():
            return
        self._stage = title
        self._console.begin(title, seconds)
        end = time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0 and not until():
                for error in (self._recorder.error, self._watch.error, painter.error):
                    if error is not None:
                        raise error
                self._show_alerts()
                self._console.tick()
                time.sleep(min(_LOOK_S, left))
        finally:
            self._console.end()

    def _show_alerts(self) -> None:
        while self._learnt is not None and not self._watch.alerts.empty():
            published = self._watch.alerts.get()
            incident, alert = self._incidents.add(published), published.alert
            score = "no score" if alert.data.score is None else f"score {alert.data.score:.3g} thresholds"
            if incident.resolved is not None:
                lasted = f"after {incident.seconds():.1f} s, {score}"
                self._console.say(f"{clock(incident.resolved)}  resolved   {lasted}")
                continue
            if alert.type is EventType.UPDATED:
                self._console.say(f"{clock(parse_time(alert.time))}  update     {alert.data.summary}")
                continue
            self._console.say(f"{clock(incident.opened)}  ALERT      incident opened, {score}")
            for line in sensor_lines(incident.channels, self._channels):
                self._console.say(f"                       {line}")

    def _quiet(self) -> bool:
        return not self._incidents.open()

    def _verdict(self) -> Verdict:
        self._show_alerts()
        return judge(self._provoked, self._incidents.all(), self._watched_from, self._plan.grace_s)

    def closing(self, verdict: Verdict) -> list[str]:
        """The last lines: what was caught and what was not."""
        lines = [""]
        incidents = self._incidents.all()
        for span in self._provoked:
            first = next((i for i in incidents if verdict.causes[i.id] == (Cause.FAULT, span.name)), None)
            if first is None:
                before = any(i.opened < span.start <= (i.resolved or span.end) for i in incidents)
                why = "an incident was open already, from before" if before else "no incident opened"
                lines.append(f"MISSED   {span.name}: {why}")
            else:
                after = (first.opened - span.start) / SECOND_NS
                sensors = ", ".join(share.name for share in first.channels)
                lines.append(f"caught   {span.name}: after {after:.1f} s, by {sensors}")
        for incident in incidents:
            if verdict.causes[incident.id][0] is Cause.FALSE_ALARM:
                sensors = ", ".join(share.name for share in incident.channels)
                lines.append(f"FALSE    {clock(incident.opened)}: an incident that no fault caused, by {sensors}")
        lines.append(f"false alarms: {verdict.false_alarms}")
        lines.append(f"clean: {'yes' if verdict.clean else 'no'}")
        lines.append(f"the page: {self._folder / page.NAME}")
        return lines

    # -- the page ----------------------------------------------------------------------------------------------------

    def _paint(self) -> None:
        page.write(self._folder, self._content(self._stage))

    @contextmanager
    def _last_words(self) -> Iterator[None]:
        """A page that is not rewritten any more must not say that it is."""
        try:
            yield
        except BaseException as error:
            if self._learnt is not None or hasattr(self, "_recorder"):
                why = "It was stopped" if isinstance(error, KeyboardInterrupt) else f"It ended by an error ({error})"
                content = replace(self._content(None), note=f"{why} before there was anything to judge.")
                with contextlib.suppress(ResidualError):
                    page.write(self._folder, content)
            raise

    def _content(self, running: str | None, verdict: Verdict | None = None) -> page.Content:
        what = {fault.name: fault.what for fault in self._faults}
        model = self._learnt.model if self._learnt else None
        return page.Content(
            host=self._telemetry.stream,
            plot=draw(self._picture()),
            running=running,
            channels=self._channels,
            faults=[(span, what[span.name]) for span in self._provoked],
            incidents=self._incidents.all(),
            verdict=verdict,
            settings=facts(self._plan, self._detector, model, self._where.name),
            left_out=left_out(self._telemetry.channels, self._channels),
        )

    def _picture(self) -> Picture:
        times, score, expected = self._watch.track.columns()
        title = "score of a throw-away model: what is normal is still being recorded"
        if self._learnt is not None:
            title = "score: how far the newest readings are from what the model expects"
            times = np.concatenate([self._learnt.times, times])
            score = np.concatenate([self._learnt.score, score])
            expected = np.concatenate([self._learnt.expected, expected])
        rows, observed = self._recorder.rows()
        panels = [
            Panel(self._channels[c].name, self._channels[c].unit, rows, observed[:, c], times, expected[:, c])
            for c in self._shown()
        ]
        span = self._learnt.span if self._learnt else None
        return Picture(times, score, title, panels, span, tuple(self._provoked), self._incidents.all())

    def _shown(self) -> Sequence[int]:
        """Which channels are drawn: those that gave incidents away, in the order of incidents, then the usual ones."""
        return shown(self._incidents.all(), [channel.name for channel in self._channels])


def shown(incidents: Sequence[Incident], names: Sequence[str]) -> list[int]:
    """Places of at most PANELS channels: the first of each incident, then the second, then the usual ones."""
    ranked = [
        incident.channels[rank].name for rank in range(3) for incident in incidents if rank < len(incident.channels)
    ]
    wanted = dict.fromkeys([*ranked, *_FIRST_PANELS, *names])
    return [names.index(name) for name in wanted if name in names][:PANELS]


class Painter:
    """A thread that redraws the page at a steady pace, from before anything is learned to the end."""

    def __init__(self, paint: Callable[[], None], every_s: float) -> None:
        self._paint, self._every_s = paint, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="painter", daemon=True)
        self.error: Exception | None = None

    def __enter__(self) -> Painter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every_s):
                self._paint()
        except Exception as error:  # noqa: BLE001 — the main thread raises it
            self.error = error
