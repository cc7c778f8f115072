"""The page: its sections in order."""

from __future__ import annotations

import html

from detector.engine.model import Model
from detector.page.document import page
from detector.page.text import plural
from trainer.page.card import model_card
from trainer.page.codes import decoded_grid, latent_space
from trainer.page.curves import scores, training
from trainer.page.detectability import detectability
from trainer.page.pictures import decoded_pictures, worst_images
from trainer.page.promise import promise
from trainer.page.tables import channels, chosen, facts, streams, versions
from trainer.page.windows import worst_windows
from trainer.report import Report

PAGE_FILE = "report.html"


def render(model: Model, report: Report) -> str:
    """The page's text."""
    manifest, learned = model.manifest, model.manifest.training
    title = f"Residual: {manifest.model} model of group {manifest.group}"
    body = [
        f"<h1>{html.escape(manifest.model)} model</h1>",
        f'<p class="lead">Learned from {learned.readings:,} readings of {plural(learned.streams, "stream")}, '
        f"{html.escape(learned.start)} to {html.escape(learned.end)}. A score above 1 is anomalous.</p>",
        facts(model, report),
        *(f'<p class="warning">{html.escape(warning)}</p>' for warning in report.warnings),
        *chosen(model),
        *promise(model, report),
        *detectability(report.detectability),
        *scores(model, report),
        *worst_windows(model, report),
        *worst_images(report),
        *training(report),
        *channels(model, report),
        *streams(model, report),
        *latent_space(report),
        *decoded_grid(model, report),
        *decoded_pictures(report),
        *model_card(model, report),
        *versions(model, report),
    ]
    return page(title, body)
