"""Asking a server until it answers: rates, attempts, and the waits between them."""

import asyncio
import json
import random
import warnings
from collections import Counter
from itertools import count

from freeprm.engines.base import Sampled
from freeprm.engines.openai.calls import PATHS, Call, Form
from freeprm.engines.openai.faults import AttemptError, RefusedError, ServerLostError, WithheldError, problem_refused
from freeprm.engines.openai.pacing import Pace
from freeprm.engines.openai.replies import Reading, choices_of, n_tokens_of
from freeprm.engines.openai.server import Server
from freeprm.errors import ModelError

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds; doubled from one attempt to the next
_LONGEST_ASKED_WAIT = 300.0  # seconds that a server may ask for; beyond it the run stops
_TIMEOUTS = 2  # retries after no answer in time, which are long
_FILTERED = 3  # draws of a response that is withheld
_CHARACTERS_PER_TOKEN = 4  # for the first estimates
_PROBLEM_STATUSES = (400, 413, 422)
_ONE_CHOICE = "only one completion choice"  # llama.cpp to an `n` above 1, with status 500


class Asker:
    """Puts one call after the other to a server, for many at a time.

    Args:
        server: where.
        form: what.
        reading: how answers are read.
        max_retries: attempts after the first.
        requests, tokens: rates to stay below.
    """

    def __init__(
        self, server: Server, *, form: Form, reading: Reading, max_retries: int, requests: Pace, tokens: Pace
    ):  # fmt: skip
        self._server, self._form, self._reading = server, form, reading
        self._max_retries, self._requests, self._tokens = max_retries, requests, tokens
        self._n_samples, self._n_tokens = 0, 0.0
        self.fewer = 0
        """Answers with fewer choices than were asked for."""
        self.retried: Counter[str] = Counter()
        """Requests sent again, by reason."""

    async def ask(self, call: Call) -> list[Sampled]:
        """Samples of the call: all of them, the first ones, or none from a server that takes one at a time only.

        Raises:
            ServerLostError: all attempts failed.
            ModelError: the server refuses the problem, or withholds every response to it.
            RefusedError: it refuses for another reason.
        """
        n_timeouts = n_filtered = 0
        for attempt in count():
            try:
                return await self._once(call, variant=n_filtered)
            except WithheldError:
                n_filtered += 1
                if n_filtered == _FILTERED:
                    raise ModelError(
                        f"problem {call.problem_id!r}: {self._server.url} withholds the response (content_filter), "
                        f"{_FILTERED} draws in turn; leave the problem out"
                    ) from None
                self._note("a response that the server withheld")
            except AttemptError as failed:
                n_timeouts += failed.timed_out
                asked = failed.wait_seconds or 0.0
                if attempt >= self._max_retries or n_timeouts > _TIMEOUTS or asked > _LONGEST_ASKED_WAIT:
                    raise self._lost(call, failed, attempt + 1) from None
                self._note(failed.reason)
                self._requests.pause(asked)
                await asyncio.sleep(_backoff(attempt))
            except RefusedError as refused:
                if refused.status in _PROBLEM_STATUSES:
                    raise problem_refused(refused, call, url=self._server.url) from None
                raise
        raise AssertionError

    async def _once(self, call: Call, *, variant: int) -> list[Sampled]:
        body = self._form.body(call, variant=variant)
        estimate = self._estimate(call)
        await self._requests.turn(1)
        await self._tokens.turn(estimate)
        try:
            reply = await self._server.post(PATHS[self._form.api], body)
        except (AttemptError, RefusedError) as error:
            self._tokens.correct(-estimate)
            if len(call.sample_idxs) > 1 and _ONE_CHOICE in str(error).lower():
                self.fewer += 1
                return []
            raise
        limit = body.get("max_tokens", body.get("max_completion_tokens"))
        samples = self._reading.samples(reply, call, limit=limit)
        self.fewer += len(choices_of(reply)) < len(call.sample_idxs)
        used = n_tokens_of(reply)
        if used is not None:
            self._tokens.correct(used - estimate)
            self._n_samples, self._n_tokens = self._n_samples + len(samples), self._n_tokens + used
        return samples

    def _estimate(self, call: Call) -> float:
        """Tokens that a call will cost: as those before it, or at most what it may."""
        n = len(call.sample_idxs)
        if self._n_samples:
            return n * self._n_tokens / self._n_samples
        prompt = len(json.dumps(call.prompt, ensure_ascii=False)) / _CHARACTERS_PER_TOKEN
        return prompt + n * self._form.params.max_new_tokens

    def _note(self, reason: str) -> None:
        """Count a retry, and tell of the first of its kind."""
        self.retried[reason] += 1
        if self.retried[reason] == 1:
            warnings.warn(f"{self._server.url}: {reason}; the request is sent again", stacklevel=2)

    def _lost(self, call: Call, failed: AttemptError, n_attempts: int) -> ServerLostError:
        asked = f" and asks to wait {failed.wait_seconds:.0f} seconds" if failed.wait_seconds else ""
        return ServerLostError(
            f"{self._server.url}: {failed}{asked}, after {n_attempts} attempts for problem {call.problem_id!r}."
        )


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt, by chance between half and all of 1, 2, 4, ... up to 30."""
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt) * random.uniform(0.5, 1.0)
