"""report.html: what was learned from what, and how well, on one self-contained page (its plots are inline SVG)."""

from trainer.page.document import PAGE_FILE, render

__all__ = ["PAGE_FILE", "render"]
