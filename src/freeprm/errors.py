"""Our exceptions. Each message says what was wrong, what was expected, and what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class FreePRMError(Exception):
    """Base of every error that a user can cause and mend; the CLI prints it without a traceback."""


class RecordError(FreePRMError):
    """A record in a file is broken: names the file, the line and the field."""

    def __init__(self, message: str, *, reason: str | None = None, row: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.reason = reason or message
        """The kind of mistake without its location, so that equal ones are counted together."""
        self.row = row
        """The row, if it lacks a column: it may be of another format."""


class ConfigError(FreePRMError):
    """A setting is unknown, of the wrong type, or out of range."""


class DataError(FreePRMError):
    """Well-formed records that cannot serve the purpose, e.g. no correct response in the whole data."""


class RunFolderError(FreePRMError):
    """A run folder belongs to another run, or is in use."""


class PluginError(FreePRMError):
    """No plug-in of that name, or the plug-in does not fit its family."""


class ModelError(FreePRMError):
    """A model, tokenizer or reward.json is not what the operation needs."""


class RewardMismatchError(ModelError):
    """Another reference, beta or template than a process reward model's reward.json records."""


class SpanError(FreePRMError):
    """Step spans that do not tile the response."""


class NonFiniteError(FreePRMError):
    """A log-probability, reward or score is NaN or infinite."""


class WorkerError(FreePRMError):
    """A process that did a part of the work failed or was lost."""


class ServerError(FreePRMError):
    """The server of a reward model cannot be reached, fails, or refuses for a reason that has no error of its own."""


class MissingExtraError(FreePRMError):
    """An optional dependency is not installed; names the extra to install."""


@contextmanager
def needs_extra(name: str, what: str) -> Iterator[None]:
    """Context of imports of an optional dependency; a MissingExtraError if they fail.

    Args:
        name: of the extra.
        what: the feature that needs it, for the message.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f"{what}: {error}; install it: pip install 'freeprm[{name}]'") from error
