"""The plan of a run: how long each stretch lasts, and every setting that differs from the defaults, with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from detector.engine.model import Model
from schemas.errors import SettingsError
from schemas.manifest import Calibration
from schemas.settings import DetectorSettings
from trainer.settings import FitSettings

#: Readings below which there is too little to learn from; a shorter normal stretch is read faster instead.
LEAST_READINGS = 180

#: Seconds between readings.
INTERVAL_S = 0.5

#: The least normal stretch: at 180 readings in 12 s the processor time, counted in steps of 10 ms, is still a number.
LEAST_SECONDS = 12.0


#: The least threshold, raw score: that of every sensor being off by more than its usual deviation at once. A machine
#: may do nothing for a minute and a half; what it does a minute later is then far from normal, and yet no fault.
LEAST_THRESHOLD = 1.0


@dataclass(frozen=True)
class Plan:
    """Seconds of each stretch; ``interval_s`` between readings."""

    interval_s: float = INTERVAL_S
    normal_s: float = 90.0
    #: after training: its load is over, the windows and the moving average are filled with quiet readings
    settle_s: float = 10.0
    #: watched before the first fault and after the last one
    quiet_s: float = 12.0
    fault_s: float = 15.0
    #: an incident that opens this long after a fault's end was still caused by it: k of n takes so long
    grace_s: float = 2.5
    #: after a fault the incident must resolve and the machine calm down: until then nothing counts as a false alarm
    wake_s: float = 20.0
    #: … but no sooner than this: by then the windows and the moving average have forgotten the fault
    calm_s: float = 8.0
    redraw_s: float = 2.0

    @classmethod
    def of(cls, seconds: float, fast: bool) -> Plan:
        """The plan for a normal stretch of ``seconds``; ``fast``: everything else short too, for a test."""
        if seconds < LEAST_SECONDS:
            raise SettingsError(f"--seconds {seconds:g}: at least {LEAST_SECONDS:g} are needed to learn what is normal")
        interval = min(INTERVAL_S, seconds / LEAST_READINGS)
        if fast:
            return cls(interval, seconds, settle_s=3, quiet_s=2, fault_s=4, grace_s=1, wake_s=8, calm_s=3, redraw_s=1)
        return cls(interval, seconds)

    @property
    def watched_s(self) -> float:
        """About how long the watching takes."""
        return self.settle_s + 2 * self.quiet_s + 2 * self.fault_s + self.wake_s


def fit_settings(seed: int = 0) -> FitSettings:
    """What ``trainer fit`` is told for so few readings of so many channels."""
    return FitSettings(
        model="conv",
        context="none",  # a minute and a half holds no period worth the name
        window=4,  # 2 s: the least that the architecture takes
        latent=3,  # so few numbers for a window of 4 · 20: a larger code learns to copy, and copies faults too
        batch_size=16,  # of 118 windows: several steps per epoch
        learning_rate=3e-3,
        epochs=150,
        patience=30,
        false_alarms="1/1h",  # what is seen of normal is too short for more
        calibration_share=0.25,
        validation_share=0.1,
        # a change of 4 % of what a sensor can do is never more than ordinary: a minute and a half does not show
        # everything that a quiet machine does
        scale_floor=0.04,
        error_floor=1.0,  # likewise for what the model gets wrong
        seed=seed,
    )


def detector_settings() -> DetectorSettings:
    """What ``detector run`` is told."""
    return DetectorSettings(
        start="latest",
        batch_latency=100,
        incident_k=5,  # 2.5 s out of 4 s: what a machine does for a moment is nobody's business
        incident_n=8,
        incident_quiet=8,
        stop_at_end=False,
        threads=1,
    )


def raised(model: Model, floor: float) -> Model:
    """The model with its threshold raised to ``floor`` (raw score) where it was lower; its tail stays what it was."""
    calibration, streams = model.manifest.calibration, model.streams
    threshold = np.maximum(streams.threshold, floor)
    group = max(calibration.threshold, floor)
    return Model(
        model.manifest.model_copy(
            update={"calibration": calibration.model_copy(update={"threshold": group, "floor": floor})}
        ),
        model.graph,
        replace(streams, threshold=threshold),
    )


def threshold_words(calibration: Calibration) -> str:
    """Which threshold was used, and what it is worth."""
    threshold, readings = calibration.threshold, calibration.readings
    if threshold <= calibration.floor:
        how = f"the demo's least: all {readings} scores of the calibration stretch were far below it"
    else:
        how = (
            f"what {calibration.peaks} peaks of the {readings} scores of the calibration stretch let expect of a false "
            f"alarm in {calibration.false_alarms.partition('/')[2]}"
        )
    return (
        f"raw score {threshold:.3g}: {how}. A minute and a half carries no promise about a day or a week of false "
        "alarms; `trainer fit` on days of data does."
    )
