"""How fast windows get to the network, beside PyTorch's own DataLoader with the same model, loss and batch size.

    python tests/bench/windows.py [--rows 20000] [--channels 38] [--model conv] [--batch-size 128] [--rounds 3]

Windows per second of training, and the share of a training step that goes into preparing its batch. Rounds of each way
are interleaved; medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]  # run as a file

from trainer_data import normal, table  # noqa: E402

from trainer.batches import Batch, Batches  # noqa: E402
from trainer.data import Prepared, prepare  # noqa: E402
from trainer.losses import masked_loss, squared  # noqa: E402
from trainer.models import MODELS, Shape, Size  # noqa: E402
from trainer.settings import FitSettings  # noqa: E402


class Slices(Dataset[tuple[Tensor, Tensor]]):
    """The usual way: one window a call, cut from the rows."""

    def __init__(self, data: Prepared) -> None:
        self.z, self.observed = torch.from_numpy(data.scaled), torch.from_numpy(data.observed)
        self.ends, self.window = data.fit_ends, data.window

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        end = int(self.ends[index])
        rows = slice(end - self.window + 1, end + 1)
        return self.z[rows], self.observed[rows]


def epoch(batches: Iterable[Batch], model: str, data: Prepared) -> float:
    """Seconds of one epoch of training."""
    torch.manual_seed(0)
    network = MODELS[model].build(Shape(data.window, data.channels), Size())
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    began = time.perf_counter()
    for batch in batches:
        outcome = network(batch.z)
        loss = sum(
            masked_loss(squared, e, batch.z[:, -e.shape[1] :], batch.observed[:, -e.shape[1] :])
            for e in outcome.expected
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimiser.step()
    return time.perf_counter() - began


def ours(data: Prepared, size: int) -> Iterator[Batch]:
    return Batches(data.fit).shuffled(size, most=len(data.fit))


def loader(data: Prepared, size: int, workers: int) -> Iterator[Batch]:
    for z, observed in DataLoader(Slices(data), batch_size=size, shuffle=True, num_workers=workers):
        yield Batch(z, observed, None)


def preparing(data: Prepared, size: int) -> float:
    """Seconds to make the batches of an epoch and do nothing with them."""
    began = time.perf_counter()
    for _ in ours(data, size):
        pass
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--channels", type=int, default=38)
    parser.add_argument("--model", default="conv", choices=[m for m in MODELS if m not in ("pca", "pca-aer", "linear")])
    parser.add_argument("--batch-size", type=int, default=FitSettings().batch_size)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    readings = table(normal(given.rows, channels=given.channels))
    data = prepare(readings, MODELS[given.model].default_window, FitSettings(context="none"))
    ways: dict[str, Callable[[], Iterable[Batch]]] = {
        "gathered on the device": lambda: ours(data, given.batch_size),
        "DataLoader, 0 workers": lambda: loader(data, given.batch_size, 0),
        "DataLoader, 2 workers": lambda: loader(data, given.batch_size, 2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    shares = []
    for _ in range(given.rounds):
        for name, batches in ways.items():
            seconds[name].append(epoch(batches(), given.model, data))
        shares.append(preparing(data, given.batch_size) / seconds["gathered on the device"][-1])
    n = len(data.fit)
    rates = {name: n / statistics.median(times) for name, times in seconds.items()}
    print(f"{given.model}, {n} windows of {data.window} x {data.channels}, batches of {given.batch_size}, 1 thread")
    for name, rate in rates.items():
        print(f"{name:24} {rate:10,.0f} windows/s")
    better = max(rate for name, rate in rates.items() if "DataLoader" in name)
    print(f"{rates['gathered on the device'] / better:.2f} times the better DataLoader")
    print(f"preparing a batch takes {100 * float(np.median(shares)):.1f} % of a training step (target: at most 10 %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
