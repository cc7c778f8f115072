"""The client's errors in our own words: the one place where the two meet."""

from __future__ import annotations

import concurrent.futures

from kafka import errors as vendor

from schemas.errors import AccessError, BrokerUnavailable, Fenced, Rebalanced, ResidualError, TopicError

_FENCED = (
    vendor.ProducerFencedError,
    vendor.InvalidProducerEpochError,
    vendor.FencedInstanceIdError,
)
_ACCESS = (
    vendor.AuthorizationError,
    vendor.SaslAuthenticationFailedError,
    vendor.UnsupportedSaslMechanismError,
    vendor.IllegalSaslStateError,
    vendor.SecurityDisabledError,
)
_TOPIC = (
    vendor.UnknownTopicOrPartitionError,
    vendor.UnknownTopicIdError,
    vendor.InvalidTopicError,
    vendor.PolicyViolationError,
    vendor.InvalidReplicationFactorError,
    vendor.InvalidConfigurationError,
    vendor.InvalidPartitionsError,
)
_UNREACHABLE = (
    vendor.KafkaConnectionError,
    vendor.KafkaTimeoutError,
    vendor.MetadataEmptyBrokerList,
    vendor.CoordinatorNotAvailableError,
    vendor.CoordinatorLoadInProgressError,
    concurrent.futures.TimeoutError,
    ConnectionError,
    TimeoutError,
)

#: What the client or Python may raise out of a call of the client.
VENDOR = (vendor.KafkaError, concurrent.futures.TimeoutError, OSError)


def translate(error: BaseException, what: str) -> ResidualError:
    """The error of ours that says what to do; ``what``: what was being tried, as "reading topic readings".

    Whatever is not known to be final becomes Rebalanced: nothing of the batch is believed, and it is done again.
    """
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, _FENCED):
        return Fenced(f"{what}: another process runs with this --replica-id: give each replica its own ({detail})")
    if isinstance(error, _ACCESS):
        return AccessError(f"{what}: the broker refuses it ({detail}): check the credentials and permissions")
    if isinstance(error, _TOPIC):
        return TopicError(f"{what}: {detail}")
    if isinstance(error, _UNREACHABLE):
        return BrokerUnavailable(f"{what}: no answer from the broker ({detail})")
    return Rebalanced(f"{what}: {detail}")


def redo(error: BaseException, what: str) -> ResidualError:
    """As ``translate`` inside a running batch, where an outage is no end: the batch is done again after it."""
    translated = translate(error, what)
    if isinstance(translated, BrokerUnavailable | TopicError):
        return Rebalanced(str(translated))
    return translated
