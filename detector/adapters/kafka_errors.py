"""The one boundary at which the Kafka client's errors become ours.

Grouped by what an operator can do about them; the most specific group wins, and groups are tried in this order:

* AccessError         a login or a permission refused
* TopicError          a topic that is missing, misnamed, or too narrow for what is written to it
* SettingsError       a setting of ours, or a broker too old, that no restart will cure
* Fenced              another process has taken over the replica id
* Rebalanced          the group moved on, or a position has no record any more: restore and go on
* TemporaryError      a batch on the broker's disk is damaged: a restart may read it from another replica
* BrokerUnavailable   whatever the client itself calls worth trying again, and it has tried for long enough
* ResidualError       the rest: the client or we broke the protocol, a bug
"""

from __future__ import annotations

from kafka import errors

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

ACCESS = (
    errors.AuthorizationError,
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.SecurityDisabledError,
    errors.InvalidPrincipalTypeError,
    errors.PrincipalDeserializationFailureError,
    errors.UnacceptableCredentialError,
    errors.DelegationTokenAuthDisabledError,
    errors.DelegationTokenExpiredError,
    errors.DelegationTokenNotFoundError,
    errors.DelegationTokenOwnerMismatchError,
    errors.DelegationTokenRequestNotAllowedError,
)

TOPIC = (
    errors.UnknownTopicOrPartitionError,
    errors.UnknownTopicIdError,
    errors.InconsistentTopicIdError,
    errors.InvalidTopicError,
    errors.TopicAlreadyExistsError,
    errors.InvalidPartitionsError,
    errors.InvalidReplicationFactorError,
    errors.InvalidReplicationAssignmentError,
    errors.PolicyViolationError,
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.UnsupportedForMessageFormatError,
)

SETTINGS = (
    errors.KafkaConfigurationError,
    errors.InvalidConfigurationError,
    errors.InvalidGroupIdError,
    errors.InvalidSessionTimeoutError,
    errors.InvalidTransactionTimeoutError,
    errors.InconsistentGroupProtocolError,  # the group id belongs to members of another kind
    errors.GroupMaxSizeReachedError,
    errors.UnsupportedVersionError,
    errors.UnrecognizedBrokerVersion,
    errors.UnsupportedCodecError,
    errors.UnsupportedCompressionTypeError,
    errors.UnsupportedAssignorError,
    errors.UnsupportedEndpointTypeError,
    errors.MismatchedEndpointTypeError,  # a controller's address instead of a broker's
)

FENCED = (
    errors.ProducerFencedError,
    errors.InvalidProducerEpochError,
    errors.FencedInstanceIdError,
    errors.UnreleasedInstanceIdError,
)

REBALANCED = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.MemberIdRequiredError,
    errors.RebalanceInProgressError,
    errors.FencedMemberEpochError,
    errors.StaleMemberEpochError,
    errors.GroupIdNotFoundError,
    errors.OffsetOutOfRangeError,
    errors.PositionOutOfRangeError,
    errors.OffsetMovedToTieredStorageError,
    errors.LogTruncationError,
    errors.NoOffsetForPartitionError,
    errors.TransactionAbortedError,
    errors.TransactionAbortableError,
    errors.InvalidTxnStateError,
    errors.InvalidProducerIdMappingError,
    errors.UnknownProducerIdError,
    errors.OutOfOrderSequenceNumberError,
    errors.DuplicateSequenceNumberError,
    errors.TransactionCoordinatorFencedError,
    errors.TransactionalIdNotFoundError,
    errors.OperationNotAttemptedError,
)

#: What a call of the client may raise: its own errors, and those of sockets and of TLS.
VENDOR = (errors.KafkaError, OSError)

DAMAGED = (errors.CorruptRecordError, errors.InvalidRecordError)

UNAVAILABLE = (
    errors.RetriableError,
    errors.BrokerNotAvailableError,
    errors.StaleControllerEpochError,
    errors.StaleBrokerEpochError,
    errors.UnknownBrokerIdError,
    errors.UnknownControllerIdError,
    errors.NewLeaderElectedError,
    errors.IneligibleReplicaError,
    errors.BrokerIdNotRegisteredError,
    errors.ReassignmentInProgressError,
    errors.LogDirNotFoundError,
    errors.QuotaViolationError,
    errors.KafkaProtocolError,  # bytes that are no Kafka answer: another service listens there, or TLS is expected
    errors.UnknownError,
    OSError,
)

#: What an authorizer refused, by the right that is lacking.
RIGHTS = (
    (errors.GroupAuthorizationFailedError, "this user lacks Read on the consumer group"),
    (errors.TransactionalIdAuthorizationFailedError, "this user lacks Write on its transactional ids (GROUP-ID-…)"),
    (errors.ClusterAuthorizationFailedError, "this user lacks a right to the cluster"),
    (errors.TopicAuthorizationFailedError, "this user lacks a right to a topic"),
)

#: In the order in which they are tried: what an error says to the operator, from the most to the least specific.
_GROUPS: tuple[tuple[type[ResidualError], tuple[type[Exception], ...], str], ...] = (
    (AccessError, ACCESS, "check the credentials and the permissions of this user"),
    (TopicError, TOPIC, "check the topic's name and settings"),
    (SettingsError, SETTINGS, "check the settings; Kafka 2.5 or newer is needed"),
    (
        Fenced,
        FENCED,
        "another process uses this replica id (give each its own), or a transaction took too long: start again",
    ),
    (Rebalanced, REBALANCED, "what was not committed will be done again"),
    (TemporaryError, DAMAGED, "a record on the broker is damaged; if a restart does not help, restore the partition"),
    (BrokerUnavailable, UNAVAILABLE, "check that the brokers are up and can be reached"),
)


def translate(error: Exception, where: str) -> ResidualError:
    """Our error for one of the client's; ``where`` says what was being done to which topic or broker.

    An error of our own passes unchanged. What the client wraps (a plain KafkaError around the cause) is looked into.
    """
    if isinstance(error, ResidualError):
        return error
    cause = _cause(error)
    for lacking, lack in RIGHTS:
        if isinstance(cause, lacking):
            named = next((", ".join(sorted(a)) for a in cause.args if isinstance(a, set | frozenset | list)), "")
            lack += f" ({named})" if named else ""
            return AccessError(f"{where}: {lack}; allow it with kafka-acls.sh (SECURITY.md lists what is needed)")
    for ours, theirs, advice in _GROUPS:
        if isinstance(cause, theirs):
            return ours(f"{where}: {_text(cause)}; {advice}")
    return ResidualError(f"{where}: {type(cause).__name__}: {_text(cause)}")


def _cause(error: Exception) -> Exception:
    """The innermost error: kafka-python hands some on as an argument of a plain KafkaError."""
    if type(error) is errors.KafkaError:
        for argument in error.args:
            if isinstance(argument, Exception):
                return _cause(argument)
            if isinstance(argument, type) and issubclass(argument, Exception):
                return argument()
    return error


def _text(error: Exception) -> str:
    """One line, without the client's dump of the whole response."""
    said = " ".join(str(error).split())
    return said if len(said) <= 300 else said[:297] + "…"
