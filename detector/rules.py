"""The rules: what decides besides the readings, as the journal says it and as engine and decoder follow it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from detector.decoding.decoded import Decoder
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.segments import Ints
from detector.journal import InForce
from schemas.errors import ModelError

log = logging.getLogger(__name__)


class Followed(NamedTuple):
    """Who follows the rules."""

    engine: Engine
    decoder: Decoder


class Rules:
    """Lets readings go by what is in force at a partition, while that is replayed, or by the settings of now.

    There is the engine of the model that serves, and, where a past is replayed that another model has seen, that one's.
    A stream of a partition is in one of them.
    """

    def __init__(
        self,
        engine: Engine,
        decoder: Decoder,
        place_of: Callable[[bytes, int], int],
        find: Callable[[str], Model | None] = lambda _: None,
    ) -> None:
        """``place_of``: partition of a key among so many, see ``Log.place_of``; ``find``: an earlier model by its id,
        None where it is not to be had.
        """
        self._decoder, self._place_of, self._find = decoder, place_of, find
        self._earlier: dict[str, Engine] = {}
        self._followed: dict[int, tuple[dict[str, Any], str | None]] = {}
        self.engine = engine
        self.serve(engine)

    def serve(self, engine: Engine) -> None:
        """From now on this engine's model serves; the one before is an earlier one, until ``rest``."""
        self._earlier[self.engine.model.id] = self.engine
        self._earlier.pop(engine.model.id, None)
        self.engine, manifest = engine, engine.model.manifest
        self._now = InForce(
            model=manifest.graph_sha256,
            version=engine.model.version or None,
            channels=manifest.channel_names,
            partitions=0,
            false_alarms=engine.false_alarms,
            policy=engine.policy.model_dump(mode="json"),
            decoding=self._decoder.terms,
        )
        self._followed[id(engine)] = self._now.policy, self._now.false_alarms

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

    def engine_of(self, model: str) -> Engine:
        """The engine of a model, by its id; the one that serves where the model is not to be had any more."""
        now = self.engine.model
        if model in (now.id, now.manifest.graph_sha256):
            return self.engine
        if model not in self._earlier:
            found = self._find(model)
            if found is None or not found.fits(now):
                log.warning(
                    "the model %s…, under which state was saved, is not to be had: readings are kept, baselines begin "
                    "anew", model[:12],
                )  # fmt: skip
                self._earlier[model] = self.engine
            else:
                log.info("model %s… goes through the past that it has seen", model[:12])
                self._earlier[model] = type(self.engine)(found, threads=self.engine.threads)
        return self._earlier[model]

    def follow(self, in_force: InForce | None = None) -> Followed:
        """Who goes by these rules, or by those of now."""
        chosen = in_force or self._now
        engine = self.engine_of(chosen.id)
        if self._followed.get(id(engine)) != (chosen.policy, chosen.false_alarms):
            engine.judge_by(Policy.model_validate(chosen.policy), chosen.false_alarms)
            self._followed[id(engine)] = chosen.policy, chosen.false_alarms
        decoder = self._decoder if chosen.decoding == self._now.decoding else self._decoder.under(chosen.decoding)
        return Followed(engine, decoder)

    def put_in_force(self, partition: int, in_force: InForce, buckets: Collection[int] | None = None) -> Ints:
        """From here on a partition goes by these: what another model's engine has of it is handed over.

        ``buckets``: those whose streams are concerned; None: all. Returns the buckets of what was handed over.
        """
        engine = self.follow(in_force).engine
        changed: list[int] = []
        for other in {id(e): e for e in (self.engine, *self._earlier.values())}.values():
            known = other.streams.of_partition(partition)
            if other is engine or not known:
                continue
            of = other.streams.bucket(np.fromiter(known.values(), np.int64, len(known)))
            chosen = [n for n, b in zip(known, of.tolist(), strict=True) if buckets is None or b in buckets]
            engine.take_over(partition, other, chosen)
            changed += np.unique(engine.streams.bucket(engine.streams.slots(partition, chosen))).tolist()
        self._place(engine, partition, in_force)
        return np.unique(np.array(changed, np.int64))

    def forget(self, partition: int) -> None:
        """Forget a partition, whoever has it."""
        for engine in (self.engine, *self._earlier.values()):
            engine.forget(partition)

    def rest(self) -> None:
        """Nothing is replayed any more: earlier models are let go, and the rules of now hold."""
        self._earlier.clear()
        self._followed = {id(self.engine): self._followed[id(self.engine)]}
        self.follow()

    def moved(self, partition: int, in_force: InForce, now: int) -> list[str]:
        """Streams of a partition whose senders write elsewhere since the topic has more partitions."""
        names = self.follow(in_force).engine.streams.of_partition(partition)
        return [name for name in names if self._place_of(name.encode(), now) != partition]

    def keyed(self, partition: int, in_force: InForce, now: int) -> bool:
        """Whether there are streams in a partition and all lie where their names' hashes put them, by either count."""
        names = self.follow(in_force).engine.streams.of_partition(partition)
        return bool(names) and all(
            partition in (self._place_of(name.encode(), in_force.partitions), self._place_of(name.encode(), now))
            for name in names
        )

    def _place(self, engine: Engine, partition: int, in_force: InForce) -> None:
        """Where records go by the streams' names, one whose name belongs elsewhere has moved and is not missed."""
        count, place_of = in_force.partitions, self._place_of
        engine.streams.place(
            partition, (lambda name: place_of(name.encode(), count) == partition) if in_force.keyed else None
        )
