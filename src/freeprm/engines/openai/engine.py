"""Sampling from any server that speaks OpenAI's chat or completions API: vLLM, transformers, llama.cpp, hosted ones.

The server has the model; nothing is loaded here.
"""

import asyncio
import os
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal, TypeVar

from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.openai.calls import FIXED, PATHS, PROMPT, Api, Call, Form, Reasoning, open_calls
from freeprm.engines.openai.replies import AttemptError
from freeprm.engines.openai.server import Pace, RefusedError, Server, ServerLostError
from freeprm.errors import ConfigError, ModelError

DEFAULT_URL = "http://localhost:8000/v1"
URL_ENV = "OPENAI_BASE_URL"
_ENOUGH = 20  # samples like the first one of their problem, and none unlike it
_ENDED = object()
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OpenAIEngine:
    """Keeps `concurrency` requests in flight and yields samples as they arrive."""

    model: str
    """The server's name for it."""
    base_url: str | None = None
    """By default OPENAI_BASE_URL, or else http://localhost:8000/v1."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the server's key, if it needs one; the key itself is never a setting."""
    api: Api | Literal["auto"] = "auto"
    """`auto` is chat, unless the server has none for the model and the prompts are plain texts."""
    template: str = f"{PROMPT}\n"
    """For completions: the text made of a plain prompt. By default as for a model without chat template."""
    samples_per_call: int = 1
    """`n` of a request; with 1 each sample has its own seed."""
    concurrency: int = 16
    """Requests in flight at a time."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    """Prompts and responses together."""
    max_retries: int = 10
    """Of a request, with waits of 1, 2, 4, ... 30 seconds, a little over two minutes in all."""
    timeout_seconds: float = 600.0
    """For one answer."""
    reasoning: Reasoning | None = None
    """Reasoning that the server returns apart from the text: `join` it as <think>...</think>, or `drop` it."""
    continues: bool = False
    """Whether the server continues the last message of a chat with `continue_final_message`, as vLLM does; others take
    it for a finished message. Not needed for completions."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of each request, e.g. `top_k`; null removes one of ours."""

    def __post_init__(self) -> None:
        for name, least in (("samples_per_call", 1), ("concurrency", 1), ("max_retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: is {getattr(self, name)}; expected {least} or more")
        for name in ("requests_per_minute", "tokens_per_minute", "timeout_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name}: is {value}; expected more than 0")
        if PROMPT not in self.template:
            raise ConfigError(f"template: is {self.template!r}; expected a text with {PROMPT} in it")
        for name in FIXED:
            if name in self.extra_body:
                raise ConfigError(f"extra_body.{name}: is for the engine to set; expected other fields of a request")
        if self.extra_body.get("seed") is not None:
            raise ConfigError(
                "extra_body.seed: would be the same for every sample; expected no seed, or null to send none"
            )

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        """See `Engine`.

        Raises:
            ConfigError: a prefix, or a prompt that ends with an assistant message, for chat without `continues`.
            ModelError: no server, an unknown model, a refused key or problem; a server lost on the way, with the number
                of samples kept.
        """
        calls = open_calls(requests, within_lines=self.api == "completions")
        begun = next((call for call in calls if call.continues), None)
        if begun and self.api != "completions" and not self.continues:
            raise ConfigError(
                f"engine 'openai': problem {begun.problem_id!r} is to go on from what the assistant has said, which a "
                "chat does not do, unless the server can. Set continues=true for a server of vLLM's or SGLang's, or "
                "api=completions with a template that renders prompts as the model's chat template does"
            )
        if not calls:
            return
        total = sum(len(request.sample_idxs) for request in requests)
        missing = sum(len(call.sample_idxs) for call in calls)
        sameness = Sameness(params)
        drawn: Iterator[Sampled] = streamed(lambda give: self._draw(calls, params, give))
        try:
            for sampled in drawn:
                missing -= 1
                sameness.see(sampled)
                yield sampled
        except ServerLostError as error:
            raise ModelError(
                f"{error} {total - missing} of {total} samples are kept; once the server is back, the same command "
                "goes on from there, at another base_url too"
            ) from None

    def identity(self) -> Mapping[str, Any]:
        """See `Engine`; without the address, so that a run can resume when its server has moved."""
        return {
            "api": self.api, "template": self.template, "reasoning": self.reasoning,
            "extra_body": dict(self.extra_body), **({"continues": True} if self.continues else {}),
        }  # fmt: skip

    def shape(self) -> None:
        """Unknown."""
        return None

    async def _draw(self, calls: deque[Call], params: SamplingParams, give: Callable[[Sampled], None]) -> None:
        key = os.environ.get(self.api_key_env, "").strip() or None
        url = self.base_url or os.environ.get(URL_ENV) or DEFAULT_URL
        names: list[str] = []
        server = Server(
            url, key=key, timeout_seconds=self.timeout_seconds, max_retries=self.max_retries,
            requests=Pace(self.requests_per_minute), tokens=Pace(self.tokens_per_minute),
        )  # fmt: skip
        async with server.client:
            try:
                names = [model["id"] for model in await server.models()]
                api = await self._api_for(calls, server)
                form = Form(
                    model=self.model, api=api, template=self.template, params=params, extra_body=self.extra_body,
                    reasoning=self.reasoning,
                )  # fmt: skip
                n_workers = min(self.concurrency, sum(len(call.sample_idxs) for call in calls))
                async with asyncio.TaskGroup() as group:
                    for _ in range(n_workers):
                        group.create_task(self._work(server, form, calls, give))
            except ExceptionGroup as failed:
                first = failed.exceptions[0]
                raise self._refusal(first, server, names) if isinstance(first, RefusedError) else first from None
            except RefusedError as refused:
                raise self._refusal(refused, server, names) from None
        server.tell_retries()

    async def _work(self, server: Server, form: Form, calls: deque[Call], give: Callable[[Sampled], None]) -> None:
        while calls:
            call, rest = calls.popleft().split(1 if server.fewer else self.samples_per_call)
            if rest:
                calls.appendleft(rest)
            before = server.fewer
            samples = await server.draw(call, form)
            for sampled in samples:
                give(sampled)
            if len(samples) < len(call.sample_idxs):
                calls.appendleft(replace(call, sample_idxs=call.sample_idxs[len(samples) :]))
            if not before and server.fewer == 1:
                warnings.warn(
                    f"the server gave {len(samples)} of {len(call.sample_idxs)} choices asked for; from here on each "
                    "sample is a request of its own (samples_per_call=1)",
                    stacklevel=2,
                )

    async def _api_for(self, calls: Sequence[Call], server: Server) -> Api:
        """Chat or completions; requests one token if neither the setting nor the prompts decide.

        Raises:
            ModelError: a conversation for completions.
        """
        conversation = next((call for call in calls if not isinstance(call.prompt, str)), None)
        if self.api == "completions" and conversation:
            raise ModelError(
                f"problem {conversation.problem_id!r}: its prompt is a conversation; completions take plain texts. Set "
                "api=chat"
            )
        if self.api != "auto":
            return self.api
        if conversation:
            return "chat"
        probe = {"model": self.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        try:
            await server.post(PATHS["chat"], probe)
        except RefusedError as refused:
            words = refused.message.lower()
            if "chat template" in words or (refused.status in (404, 405) and "model" not in words):
                warnings.warn(f"{server.url}: no chat for {self.model} ({refused}); completions are used", stacklevel=2)
                return "completions"
        except AttemptError:
            pass  # the first request shows whether it persists
        return "chat"

    def _refusal(self, refused: RefusedError, server: Server, names: Sequence[str]) -> ModelError:
        return server.refusal(refused, model=self.model, key_env=self.api_key_env, names=names, setting="--model")


class Sameness:
    """Detects a server that ignores the temperature: warns once, if the first samples all repeat each other."""

    def __init__(self, params: SamplingParams):
        self._first: dict[str, str] = {}
        self._temperature = params.temperature
        self._n_same = 0
        self._open = params.temperature > 0

    def see(self, sampled: Sampled) -> None:
        """Take a sample into account."""
        if not self._open:
            return
        before = self._first.setdefault(sampled.problem_id, sampled.text)
        if before is sampled.text:
            return
        self._n_same += before == sampled.text
        if before != sampled.text or self._n_same == _ENOUGH:
            self._open = False
            self._first.clear()
        if self._n_same == _ENOUGH:
            warnings.warn(
                f"{_ENOUGH} samples in turn are the same as the first one of their problem at temperature "
                f"{self._temperature:g}; the server may ignore it. transformers serve does, unless the model's "
                "generation_config.json has do_sample: true",
                stacklevel=3,
            )


def streamed(work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Iterator[T]:
    """The items that `work` passes to its callback, run in a thread with its own event loop; then its error, if any.

    Closing the iterator, or an interrupt while it waits, cancels the work and waits for its end.
    """
    queue: SimpleQueue[Any] = SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(queue.put))
    thread = Thread(target=_run, args=(loop, task, queue), name="freeprm-openai", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _ENDED:
            yield item
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
    task.result()


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", queue: SimpleQueue[Any]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait([task]))
        if not task.cancelled():
            task.exception()  # marks it as retrieved, also if nobody asks for the result
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        queue.put(_ENDED)
