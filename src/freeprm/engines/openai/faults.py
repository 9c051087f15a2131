"""What can go wrong with one request: to be tried again, or final."""

from collections.abc import Sequence

from freeprm.engines.openai.calls import Call
from freeprm.errors import ModelError

_N_NAMES = 20  # models listed in a message


class AttemptError(Exception):
    """An attempt that may succeed later."""

    def __init__(
        self, reason: str, *, detail: str = "", wait_seconds: float | None = None, timed_out: bool = False
    ):  # fmt: skip
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        """The kind of failure, without what differs from time to time, so that equal ones can be counted."""
        self.wait_seconds = wait_seconds
        """As the server asks for."""
        self.timed_out = timed_out


class WithheldError(Exception):
    """A response that the server withheld; another draw may pass."""


class RefusedError(Exception):
    """The server understood, and will not."""

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class ServerLostError(ModelError):
    """The server gave no answer in all the attempts that were allowed."""


def refusal(
    refused: RefusedError, *, url: str, model: str, key_env: str, key: bool, names: Sequence[str]
) -> ModelError:
    """The error for a request that is refused whatever the problem: the key, the model, the address, the account."""
    if refused.status in (401, 403):
        state = "refuses the key in" if key else "wants a key, and there is none in"
        return ModelError(f"{url} {state} the environment variable {key_env} ({refused})")
    if refused.status == 404:
        known = f"It has {_listed(names)}" if names else "It does not list its models"
        return ModelError(
            f"{url}: no model {model!r}, or no such address ({refused}). {known}; --model takes the name that the "
            "server uses, and base_url usually ends in /v1"
        )
    return ModelError(f"{url} refuses all requests ({refused})")


def problem_refused(refused: RefusedError, call: Call, *, url: str) -> ModelError:
    """The error for one problem's request: mostly a prompt that is too long, or a field that the server lacks."""
    return ModelError(
        f"problem {call.problem_id!r}: {url} refuses the request ({refused}). Leave the problem out if its prompt is "
        "at fault; a field that the server does not know is taken away by --engine-option extra_body.NAME=null"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _N_NAMES
    return ", ".join(names[:_N_NAMES]) + (f" and {more} more" if more > 0 else "")
