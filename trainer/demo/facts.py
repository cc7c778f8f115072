"""What the page says about how the run was done: every setting that matters, in words."""

from __future__ import annotations

from detector.engine.model import Model
from schemas.settings import DetectorSettings
from trainer.demo.plan import Plan, fit_settings, threshold_words


def facts(plan: Plan, detector: DetectorSettings, model: Model | None, where: str) -> list[tuple[str, str]]:
    """(setting, value)."""
    fit = fit_settings()
    found = [
        ("readings", f"one every {plan.interval_s:.3g} s, over {where}"),
        ("normal stretch", f"{plan.normal_s:g} s, with the detector and the plotting already at work"),
    ]
    if model is not None:
        manifest = model.manifest
        calibration = manifest.calibration
        found += [
            (
                "model",
                f"convolutional autoencoder, windows of {manifest.window} readings, a code of {fit.latent} numbers; "
                f"fitted on the first {manifest.training.readings - calibration.readings} of "
                f"{manifest.training.readings} readings, calibrated on the last {calibration.readings}",
            ),
            ("threshold", threshold_words(calibration)),
            ("score", f"divided by the threshold, smoothed over {manifest.smoothing_span:g} readings"),
        ]
    found += [
        (
            "incident",
            f"opens when {detector.incident_k} of {detector.incident_n} readings are above the threshold, resolves "
            f"after {detector.incident_quiet} in a row below it",
        ),
        (
            "least change that counts",
            f"{fit.scale_floor:.0%} of what a sensor can do counts as one standard deviation at least; so does one "
            "standard deviation of what the model gets wrong",
        ),
        (
            "when it counts",
            f"{plan.settle_s:g} s after training nothing counts; a fault is caught by an incident that opens from its "
            f"start to {plan.grace_s:g} s past its end; until that has resolved, {plan.calm_s:g} to "
            f"{plan.wake_s:g} s, what opens is the fault's wake; any other incident is a false alarm",
        ),
    ]
    return found
