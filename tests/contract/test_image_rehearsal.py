"""The page of a rehearsal over images, through the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from image_data import SPECK, scenes
from thorough import thorough

from detector.adapters.folder import write_model
from detector.adapters.images import read_images
from detector.cli import main as detector
from trainer.images.pipeline import learn_images
from trainer.settings import FitSettings


@thorough
def test_of_images_the_page_shows_where_the_error_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "normal.npz", x=scenes(120))
    np.savez(tmp_path / "faulty.npz", x=scenes(60, seed=5, faulty=range(30, 36)))
    learned = learn_images(read_images([str(tmp_path / "normal.npz")]), FitSettings.model_validate({"model": "pca"}))
    write_model(learned.model, tmp_path / "model")
    command = ["score", "--model", str(tmp_path / "model"), str(tmp_path / "faulty.npz")]
    for flag, name in (("--out", "scores.csv"), ("--alerts", "alerts.jsonl"), ("--report", "page.html")):
        command += [flag, str(tmp_path / name)]
    assert detector([*command, "--compare", "incident_k=1"]) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    sent = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text(encoding="utf-8").splitlines()]
    maps = [event["data"]["image"]["map"] for event in sent if event["type"].endswith("opened")]
    assert maps
    assert all(f'<img src="data:image/png;base64,{image}"' in text for image in maps)
    row, column = SPECK
    place = re.search(r"the largest at column (\d+), row (\d+)", text)
    assert place is not None
    assert abs(int(place[1]) - column) <= 2
    assert abs(int(place[2]) - row) <= 2
