"""Rehearsal: what would have been sent over past data, on one self-contained page; two settings side by side."""

from detector.rehearsal.page import render
from detector.rehearsal.record import Record

__all__ = ["Record", "render"]
