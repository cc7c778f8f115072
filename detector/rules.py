"""The rules: what decides besides the readings, as the journal says it and as engine and decoder follow it."""

from __future__ import annotations

from collections.abc import Callable

from detector.decoding.decoded import Decoder
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.journal import InForce
from schemas.errors import ModelError


class Rules:
    """Lets one engine go by what is in force at a partition, while that is replayed, or by the settings of now."""

    def __init__(self, engine: Engine, decoder: Decoder, place_of: Callable[[bytes, int], int]) -> None:
        """``place_of``: partition of a key among so many, see ``Log.place_of``."""
        self._engine, self._decoder, self._place_of = engine, decoder, place_of
        manifest = engine.model.manifest
        self._now = self._followed = InForce(
            model=manifest.graph_sha256,
            channels=manifest.channel_names,
            partitions=0,
            false_alarms=engine.false_alarms,
            policy=engine.policy.model_dump(mode="json"),
            decoding=decoder.terms,
        )

    def now(self, partitions: int, keyed: bool) -> InForce:
        """What the settings of now say, for a topic of so many partitions."""
        return self._now.model_copy(update={"partitions": partitions, "keyed": keyed})

    def check(self, in_force: InForce) -> None:
        """Raises ModelError where the state was saved under a model of other channels."""
        if in_force.channels != self._now.channels:
            raise ModelError(
                f"the saved state belongs to the model {in_force.model[:12]}…, whose channels are others than those of "
                f"{self._now.model[:12]}…: use a model of the same channels, or another --group-id"
            )

    def follow(self, in_force: InForce | None = None) -> Decoder:
        """Go by these rules, or by those of now; returns the decoder that does so, too."""
        chosen = in_force or self._now
        if (chosen.policy, chosen.false_alarms) != (self._followed.policy, self._followed.false_alarms):
            self._engine.judge_by(Policy.model_validate(chosen.policy), chosen.false_alarms)
        self._followed = chosen
        return self._decoder if chosen.decoding == self._now.decoding else self._decoder.under(chosen.decoding)

    def moved(self, partition: int, now: int) -> list[str]:
        """Streams of a partition whose senders write elsewhere since the topic has more partitions."""
        names = self._engine.streams.of_partition(partition)
        return [name for name in names if self._place_of(name.encode(), now) != partition]

    def keyed(self, partition: int, before: int, now: int) -> bool:
        """Whether there are streams in a partition and all lie where their names' hashes put them, by either count."""
        names = self._engine.streams.of_partition(partition)
        return bool(names) and all(
            partition in (self._place_of(name.encode(), before), self._place_of(name.encode(), now)) for name in names
        )

    def place(self, partition: int, in_force: InForce) -> None:
        """Where records go by the streams' names, one whose name belongs elsewhere has moved and is not missed."""
        count, place_of = in_force.partitions, self._place_of
        self._engine.streams.place(
            partition, (lambda name: place_of(name.encode(), count) == partition) if in_force.keyed else None
        )
