"""Every error of the Kafka client becomes one of ours, and the right kind of it."""

from __future__ import annotations

import inspect
import socket
import ssl

import pytest
from kafka import errors

from detector.adapters.kafka_errors import translate
from schemas.errors import (
    AccessError,
    BrokerUnavailable,
    Fenced,
    Rebalanced,
    ResidualError,
    SettingsError,
    TemporaryError,
    TopicError,
)

VENDOR = sorted(
    {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.KafkaError)},
    key=lambda cls: cls.__name__,
)

# What can only mean that the client, the broker or we broke the protocol, or that is not for clients at all.
BUGS = {
    "BrokerResponseError",
    "DuplicateBrokerRegistrationError",
    "DuplicateResourceError",
    "DuplicateVoterError",
    "FeatureUpdateFailedError",
    "FencedStateEpochError",
    "GroupSubscribedToTopicError",
    "IllegalArgumentError",
    "IllegalStateError",
    "InconsistentClusterIdError",
    "InconsistentVoterSetError",
    "InvalidCommitOffsetSizeError",
    "InvalidFetchRequestError",
    "InvalidRecordStateError",
    "InvalidRegistrationError",
    "InvalidRequestError",
    "InvalidRequiredAcksError",
    "InvalidTimestampError",
    "InvalidUpdateVersionError",
    "InvalidVoterKeyError",
    "KafkaError",
    "NoError",
    "NoReassignmentInProgressError",
    "NonEmptyGroupError",
    "OffsetMetadataTooLargeError",
    "ResourceNotFoundError",
    "SnapshotNotFoundError",
    "TelemetryTooLargeError",
    "TopicDeletionDisabledError",
    "UnknownSubscriptionIdError",
    "VoterNotFoundError",
}


def made(cls: type[Exception]) -> Exception:
    return cls({}) if cls is errors.LogTruncationError else cls()


@pytest.mark.parametrize("cls", VENDOR, ids=lambda cls: cls.__name__)
def test_every_error_of_the_client_has_a_place(cls: type[Exception]) -> None:
    ours = translate(made(cls), "doing this")
    assert str(ours).startswith("doing this: ")
    assert "\n" not in str(ours)
    assert (type(ours) is ResidualError) == (cls.__name__ in BUGS), f"{cls.__name__} became {type(ours).__name__}"
    if isinstance(ours, BrokerUnavailable):
        assert cls.retriable or not issubclass(cls, errors.RetriableError)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (errors.TopicAuthorizationFailedError, AccessError),
        (errors.SaslAuthenticationFailedError, AccessError),
        (errors.UnknownTopicOrPartitionError, TopicError),
        (errors.MessageSizeTooLargeError, TopicError),
        (errors.IncompatibleBrokerVersion, SettingsError),
        (errors.ProducerFencedError, Fenced),
        (errors.FencedInstanceIdError, Fenced),
        (errors.CommitFailedError, Rebalanced),
        (errors.OffsetOutOfRangeError, Rebalanced),
        (errors.CorruptRecordError, TemporaryError),
        (errors.KafkaTimeoutError, BrokerUnavailable),
        (errors.KafkaConnectionError, BrokerUnavailable),
        (errors.NotEnoughReplicasError, BrokerUnavailable),
        (errors.for_code(9999), BrokerUnavailable),
    ],
)
def test_the_kind_says_what_to_do(theirs: type[Exception], ours: type[ResidualError]) -> None:
    assert type(translate(theirs(), "")) is ours
    wrapped = errors.KafkaError("Cannot perform send because of an earlier error.", theirs())
    assert type(translate(wrapped, "")) is ours


def test_what_is_no_error_of_the_client() -> None:
    ours = TopicError("there is no topic x")
    assert translate(ours, "doing this") is ours
    for broken in (ConnectionRefusedError(), socket.gaierror(), ssl.SSLError(), TimeoutError()):
        assert type(translate(broken, "")) is BrokerUnavailable
    assert type(translate(RuntimeError("state"), "")) is ResidualError
    assert len(str(translate(errors.KafkaError("x" * 5000), "doing this"))) < 400
