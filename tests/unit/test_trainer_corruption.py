"""What a network is shown in training: how much is hidden, where, and that nothing set changes nothing."""

from __future__ import annotations

import pytest
import torch

from trainer.corruption import SPAN, Corruption

Z = torch.ones(400, 16, 6)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_nothing_set_changes_nothing() -> None:
    assert Corruption()(Z) is Z


def test_noise_has_its_size_and_leaves_the_truth_alone() -> None:
    spoilt = Corruption(noise=0.3)(Z)
    assert (spoilt - Z).std() == pytest.approx(0.3, rel=0.02)
    assert (Z == 1).all()


def test_hidden_cells_are_0_and_as_many_as_asked_for() -> None:
    assert (Corruption(mask_cells=0.2)(Z) == 0).float().mean() == pytest.approx(0.2, abs=0.01)


def test_a_hidden_channel_is_hidden_for_the_whole_window() -> None:
    hidden = Corruption(mask_channels=0.25)(Z) == 0  # [B, W, C]
    assert (hidden.all(1) == hidden.any(1)).all()
    assert hidden.float().mean() == pytest.approx(0.25, abs=0.03)


def test_a_hidden_span_is_one_run_of_readings_of_all_channels() -> None:
    hidden = Corruption(mask_spans=0.5)(Z) == 0
    assert (hidden.all(2) == hidden.any(2)).all()
    rows = hidden.any(2).int()  # [B, W]
    assert set(rows.sum(1).tolist()) == {0, round(SPAN * 16)}
    edges = torch.diff(rows, dim=1, prepend=torch.zeros(400, 1, dtype=torch.int)).clamp(min=0).sum(1)
    assert edges.max() == 1
    assert (rows.sum(1) > 0).float().mean() == pytest.approx(0.5, abs=0.06)


def test_they_compose_and_follow_torchs_seed() -> None:
    corrupt = Corruption(noise=0.1, mask_cells=0.1, mask_channels=0.1, mask_spans=0.1)
    first = corrupt(Z)
    torch.manual_seed(0)
    assert torch.equal(corrupt(Z), first)
    assert not torch.equal(corrupt(Z), first)
