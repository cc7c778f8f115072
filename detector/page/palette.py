"""The colours of pages, for light and for dark ones."""

from __future__ import annotations

#: Colours of lines, then of the threshold, of text, of axes, of the grid, and of what lies behind lines: by the name of
#: the page's variable, for light and for dark pages.
PALETTE = {
    "c0": ("#2563a8", "#6cabec"),
    "c1": ("#c2571a", "#f09a5e"),
    "c2": ("#2f7d4f", "#6cc490"),
    "c3": ("#7a4fa3", "#b996dd"),
    "c4": ("#a33b4a", "#e58b98"),
    "c5": ("#5b6471", "#a3adb8"),
    "threshold": ("#b3261e", "#ff8a80"),
    "ink": ("#1c2126", "#e3e7eb"),
    "soft": ("#5b6470", "#a0aab4"),
    "edge": ("#8a929b", "#77828d"),
    "grid": ("#e4e7ea", "#2c343c"),
    "band": ("#eef3f9", "#1f2a36"),
}


def variables() -> tuple[str, str]:
    """The palette as CSS variables, for light and for dark pages."""
    light, dark = ("; ".join(f"--{name}: {pair[which]}" for name, pair in PALETTE.items()) for which in (0, 1))
    return light, dark
