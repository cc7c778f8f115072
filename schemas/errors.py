"""Every error that Residual raises on purpose.

* ResidualError                  exit code 1
  x UserError                    exit code 2: do not restart, something must be changed first
    + SettingsError              an unknown key, a value out of range, a flag that contradicts another
    + DataError                  a file that cannot be read as data: file, line and column are in the message
    + ModelError                 a model folder that is not one, is damaged, or does not fit
    + TopicError                 a topic that is missing, has another layout, or belongs to another consumer group
    + AccessError                a login or a permission refused by the broker
  x TemporaryError               exit code 75: a restart may help
    + BrokerUnavailable          out of reach for longer than the time-out
    + StoreUnavailable           the model store is out of reach, or somebody else changed it at the same time
    + Fenced                     another replica with the same replica id has taken over
    + WatchdogExpired            the main loop made no progress for longer than the watchdog's deadline
  x Rebalanced                   never leaves the service: the batch is dropped and the partitions are restored
  x ParityError                  the exported graph does not say what the fitted model says; nothing was written
"""


class ResidualError(Exception):
    """Root of the tree. One line: what, where, what to do."""

    exit_code = 1


class UserError(ResidualError):
    """Something the user can put right; restarting without that will not help."""

    exit_code = 2


class SettingsError(UserError):
    """A setting is unknown or out of range: correct the flag, the variable or the file that the message names."""


class DataError(UserError):
    """A file cannot be read as readings: correct the cell or the column that the message names."""


class ModelError(UserError):
    """A model folder is missing, damaged or does not fit: fit it again, or name another."""


class TopicError(UserError):
    """A topic is missing or laid out otherwise: create it, or name another."""


class AccessError(UserError):
    """The broker refuses the login or the operation: correct the credentials or the permissions."""


class TemporaryError(ResidualError):
    """Something outside went away: let the supervisor start the process again."""

    exit_code = 75


class BrokerUnavailable(TemporaryError):
    """No broker answered within the time-out: check the address, or wait and start again."""


class StoreUnavailable(TemporaryError):
    """The model store did not answer, or somebody else was first: look at what is there, and try again."""


class Fenced(TemporaryError):
    """Another process uses this replica id: give each replica its own."""


class WatchdogExpired(TemporaryError):
    """The main loop stood still for too long: restart the process; nothing committed is lost."""


class Rebalanced(ResidualError):
    """The group moved on while a batch was under way: drop what is not ``kept``, restore what is owned besides."""

    def __init__(self, why: str, kept: frozenset[int] = frozenset()) -> None:
        super().__init__(why)
        self.kept = kept
        """Partitions that nobody else had meanwhile: what was done for them, uncommitted work included, is good."""


class ParityError(ResidualError):
    """The exported graph and the fitted model disagree: the model was not written; report this as a bug."""
