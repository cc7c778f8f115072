"""The plan of a run: how long each stretch lasts, and every setting that differs from the defaults, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from detector.engine.calibration import needed
from schemas.errors import SettingsError
from schemas.settings import DetectorSettings
from trainer.settings import FitSettings

#: Readings below which there is too little to learn from; a shorter normal stretch is read faster instead.
LEAST_READINGS = 180

#: Seconds between readings.
INTERVAL_S = 0.5

#: The least normal stretch: at 180 readings in 12 s the processor time, counted in steps of 10 ms, is still a number.
LEAST_SECONDS = 12.0


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
        window=8,  # 4 s: leaves 114 of 180 readings' windows to fit on
        latent=3,  # per quarter of the window: a larger code learns to copy, and copies faults too
        batch_size=16,  # of 114 windows: several steps per epoch
        learning_rate=3e-3,
        epochs=150,
        patience=30,
        calibration_share=0.25,
        validation_share=0.1,
        # a change of 2 % of what a sensor can do is never more than ordinary: a minute and a half does not show
        # everything that a quiet machine does
        scale_floor=0.02,
        error_floor=1.0,  # likewise for what the model gets wrong
        # far beyond what so few readings can promise, so the threshold is an extrapolation: see threshold_words
        rate=1e-4,
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


def threshold_words(rate: float, readings: int, threshold: float) -> str:
    """Which threshold was used, and what it is worth."""
    enough = needed(rate)
    if readings >= enough:
        return f"raw score {threshold:.3g}: exceeded by one normal reading in {1 / rate:,.0f} (split conformal)"
    return (
        f"raw score {threshold:.3g}: the largest of the {readings} scores of the calibration stretch, and as much more "
        f"as an exponential tail would reach in {enough:,} readings. {readings} readings carry no promise about "
        "a day or a week of false alarms; `trainer fit` on days of data does."
    )
