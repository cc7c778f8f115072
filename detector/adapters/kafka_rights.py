"""Whether a user has the rights to its topics, found out before anything is done.

A right to write is otherwise missed at the first alert, which may be days after the start. Rights to the consumer group
and to the transactional id are missed at the start by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kafka import KafkaAdminClient
from kafka import errors as vendor

from detector.adapters.kafka_topics import Topics
from schemas.errors import AccessError

READ, WRITE = "READ", "WRITE"


def of_detector(topics: Topics) -> dict[str, tuple[str, ...]]:
    """What a detector does to its topics, by name."""
    scores = {} if topics.scores is None else {topics.scores: (WRITE,)}
    return scores | {
        topics.readings: (READ,),
        topics.alerts: (WRITE,),
        topics.dead_letters: (WRITE,),
        topics.state: (READ, WRITE),
        topics.commands: (READ,),
    }


def check_rights(admin: KafkaAdminClient, wanted: Mapping[str, Iterable[str]]) -> None:
    """Raises AccessError where the user lacks one of the rights; says nothing of topics that do not exist.

    A broker that knows no rights, or does not tell, passes.
    """
    lacking: dict[str, list[str]] = {}
    for topic in admin.describe_topics(list(wanted)):
        name, found = topic["name"], topic.get("authorized_operations")
        error = vendor.for_code(topic["error_code"])
        if error is vendor.TopicAuthorizationFailedError:
            found = ()  # not even to see it: whether it exists is not told either
        elif error is not vendor.NoError or not found:
            continue
        for right in wanted[name]:
            if right not in found:
                lacking.setdefault(right, []).append(name)
    if lacking:
        said = "; ".join(f"{right.capitalize()} on {', '.join(sorted(names))}" for right, names in lacking.items())
        right, names = next(iter(lacking.items()))
        raise AccessError(
            f"this user lacks rights to topics: {said}; allow it, with kafka-acls.sh --add --allow-principal User:… "
            f"--operation {right.capitalize()} --topic {sorted(names)[0]} (SECURITY.md lists what is needed)"
        )
