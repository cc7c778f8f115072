"""What the service tells the outside about itself: nothing here; ``detector.run`` has the one with metrics."""

from __future__ import annotations

from detector.adapters.port import Transaction
from detector.decoding.decoded import Decoded
from detector.engine.engine import Engine, Scored
from detector.engine.model import Model


class Observer:
    """Told of everything that happens; decides nothing. Methods do nothing unless overridden."""

    def beat(self) -> None:
        """The main loop goes round."""

    def ready(self, ready: bool, why: str) -> None:
        """Whether the partitions are restored and watched."""

    def assigned(self, partitions: frozenset[int]) -> None:
        """These partitions are owned now."""

    def rebalanced(self) -> None:
        """The group moved on."""

    def lost(self, what: str, records: int) -> None:
        """Retention deleted records before they were scored (``unscored``) or while they were needed (``replay``)."""

    def cold(self, partition: int) -> None:
        """A partition that was watched before starts without its past."""

    def evicted(self, streams: int, readings: int) -> None:
        """So many streams were forgotten to make room for others, and so many readings of theirs that still waited."""

    def damaged(self, reason: str, offsets: int) -> None:
        """A range of this many offsets was passed over, since nobody can read it."""

    def stage(self, name: str, seconds: float) -> None:
        """A stage of a batch took this long."""

    def lag(self, lag: dict[int, int]) -> None:
        """Records not yet committed, by owned partition."""

    def decoded(self, records: int, decoded: list[Decoded]) -> None:
        """A batch of this many records was decoded."""

    def scored(self, scored: Scored, engine: Engine) -> None:
        """Its readings, or some of them, were scored."""

    def command(self, outcome: str) -> None:
        """An operator's command was ``applied``, ``repeated``, ``bad``, or is about a stream that is ``elsewhere``."""

    def serves(self, model: Model) -> None:
        """This model serves from now on."""

    def committed(self, transaction: Transaction, types: list[str], seconds: float) -> None:
        """A transaction is visible; ``types``: the type of each alert in it."""
