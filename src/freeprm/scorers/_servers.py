"""Log-ratios whose two models are on inference servers: token ids are sent, their log-probabilities come back.

Nothing is tokenised there. What comes back is checked: as many tokens as were sent, the same ones, every
log-probability finite and at most 0. That a server has the weights that reward.json names cannot be seen from here.

Requests and answers follow vLLM 0.33.0 (`vllm/entrypoints/openai/completion`, `vllm/entrypoints/serve/engine`) and
SGLang 0.5.23 (`sglang/srt/entrypoints/http_server.py`, `sglang/srt/managers`).
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.engines.openai.engine import streamed
from freeprm.engines.openai.replies import AttemptError
from freeprm.engines.openai.server import (
    PROBLEM_STATUSES,
    Pace,
    RefusedError,
    Server,
    ServerLostError,
    listed,
    shown_url,
)
from freeprm.errors import ConfigError, ModelError, NonFiniteError
from freeprm.models.batching import NOT_FINITE, Advance
from freeprm.models.encoding import Encoded
from freeprm.models.loading import LoadOptions, context_length, load_config, load_tokenizer, portable, template_hash
from freeprm.models.logprobs import distinct
from freeprm.models.prompts import warn_of_plain_prompts
from freeprm.models.reward_config import (
    Reference,
    RewardConfig,
    check_template,
    load_reward_config,
    recorded_date,
    reference_of,
    with_beta,
)
from freeprm.scorers._log_ratio import LogRatio, Score, described
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import Description, ScorerSource, Servers

_VLLM_MINUS_INFINITY = -9999.0  # `clamp_prompt_logprobs`: JSON has no infinity
_ROUNDING = 1e-4  # nats by which a log-probability of almost 1 may come out above 0


class _Given(NamedTuple):
    """What a server says of one token."""

    token: int
    logprob: Any
    """A number, unless something is wrong."""


class _Answer(NamedTuple):
    """What a server says of one response."""

    n_tokens: int
    """That were read, of prompt and response."""
    response: Sequence[_Given]
    """Of the tokens behind the prompt."""


class _Api(Protocol):
    """How a server is asked for log-probabilities of tokens that it is given, and how it answers."""

    def path(self, url: str) -> str:
        """Path below the address, or another address."""
        ...

    def body(self, item: Encoded, *, model: str, is_adapter: bool) -> dict[str, Any]:
        """The request's fields."""
        ...

    def read(self, answer: Any, item: Encoded, *, vocab_size: int) -> _Answer:
        """The decoded answer; an AttemptError or KeyError, IndexError, TypeError or ValueError of another shape."""
        ...


class _VLLM:
    """vLLM: `prompt_logprobs` of /v1/completions, null for the first token, else {token: {logprob, rank, ...}}.

    It reads all of the prompt for it, whatever is in its prefix cache, and draws one token more.
    """

    def path(self, url: str) -> str:
        """See `_Api`."""
        return "/completions"

    def body(self, item: Encoded, *, model: str, is_adapter: bool) -> dict[str, Any]:
        """See `_Api`; 0 log-probabilities are that of the prompt's own token alone."""
        return {
            "model": model, "prompt": item.ids.tolist(), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0,
            "return_token_ids": True,
        }  # fmt: skip

    def read(self, answer: Any, item: Encoded, *, vocab_size: int) -> _Answer:
        """See `_Api`."""
        if not isinstance(answer, dict) or not answer.get("choices"):
            raise AttemptError("an answer without choices")
        choice = answer["choices"][0]
        found, read = choice["prompt_logprobs"], choice.get("prompt_token_ids")
        if found[0] is not None:
            raise ValueError("its first token has a log-probability, which nothing predicts")
        if read is not None and read[: item.n_prompt] != item.ids[: item.n_prompt].tolist():
            raise ValueError("the prompt that it read is another one")
        given = []
        for sent, entry in zip(item.ids[item.n_prompt :].tolist(), found[item.n_prompt :], strict=False):
            # More than one where the server was told so: the prompt's own token is first.
            token = str(sent) if str(sent) in entry else next(iter(entry))
            value = entry[token]["logprob"]
            is_clamped = isinstance(value, float) and value <= _VLLM_MINUS_INFINITY
            given.append(_Given(int(token), float("-inf") if is_clamped else value))
        return _Answer(len(found), given)


class _SGLang:
    """SGLang: `input_token_logprobs` of /generate, [logprob, token, text] from a given token on, null for the first.

    What stands before that token is taken from its prefix cache; NaN and infinity are null, too.
    """

    def path(self, url: str) -> str:
        """See `_Api`."""
        return f"{url.removesuffix('/v1')}/generate"

    def body(self, item: Encoded, *, model: str, is_adapter: bool) -> dict[str, Any]:
        """See `_Api`; its server has one model, and adapters."""
        return {
            "input_ids": item.ids.tolist(), "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True, "logprob_start_len": item.n_prompt - 1,
            **({"lora_path": model} if is_adapter else {}),
        }  # fmt: skip

    def read(self, answer: Any, item: Encoded, *, vocab_size: int) -> _Answer:
        """See `_Api`."""
        about = answer["meta_info"]
        if (about.get("finish_reason") or {}).get("type") == "abort":
            raise AttemptError("a request that the server aborted", detail=str(about["finish_reason"].get("message")))
        first, *found = about["input_token_logprobs"]
        if first[0] is not None:
            raise ValueError("the token before the response has a log-probability, which was not asked for")
        given = [_Given(int(entry[1]), entry[0]) for entry in found]
        for index, sent in enumerate(item.ids[item.n_prompt :].tolist()):
            # It says 0 for the last tokens of the vocabulary, which it keeps for images.
            if sent >= vocab_size - 1 and index < len(given) and given[index].token == 0:
                given[index] = given[index]._replace(token=sent)
        return _Answer(about.get("prompt_tokens", item.n_prompt + len(found)), given)


_APIS: Mapping[str, _Api] = {"vllm": _VLLM(), "sglang": _SGLang()}


class _Served(NamedTuple):
    """What a server says of a model of its own."""

    name: str
    api: _Api
    is_adapter: bool
    max_length: int | None
    """Tokens of its context, the one that is drawn included; None if it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model on a server, as a `Reader`."""

    role: str
    """policy or reference: of its settings."""
    url: str
    name: str | None
    settings: Servers
    source: str
    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    dtype: str
    max_length: int
    """Once `greeted`, what the server takes."""
    served: _Served | None = None

    @property
    def place(self) -> str:
        """See `Reader`."""
        return f"{self.url} {self.name}"

    @property
    def model(self) -> None:
        """See `Reader`."""
        return None

    @property
    def shown(self) -> str:
        """The address, for messages."""
        return shown_url(self.url)

    def greeted(self) -> "ServedModel":
        """The same with what the server says of the model; a ConfigError or ModelError if it has no such model."""
        [served] = streamed(self._greet)
        longest = min(self.max_length, (served.max_length or self.max_length + 1) - 1)
        return replace(self, served=served, max_length=longest)

    def reading(self, what: str, passed: Advance, *, usage: Usage, token_budget: int | None) -> Score:
        """See `Reader`; the server makes up batches, so that there is no budget."""
        return partial(self._score, advance=usage.timing(what, advance=passed))

    def _score(self, encoded: Sequence[Encoded], *, advance: Advance) -> list[Tensor]:
        """(T,) of each response, in order.

        Raises:
            ModelError: the server is lost, refuses a response or all of them, or gives something else; names the first.
            NonFiniteError: a log-probability is NaN or infinite; names the response.
        """
        unique, places = distinct(encoded)
        found: dict[int, Tensor] = {}
        for index, logps in streamed(partial(self._read_all, unique)):
            found[index] = logps
            advance(len(unique[index].ids), 1)
        return [found[place] for place in places]

    async def _greet(self, give: Callable[[_Served], None]) -> None:
        async with self._connected() as server:
            models = await server.models()
        names = [model["id"] for model in models]
        flag = f"--server-option {self.role}_name="
        if self.name is None and len(names) != 1:
            raise ConfigError(f"{self.shown}: which model is the {self.role}? {listed(names)}; say it by {flag}NAME")
        name = names[0] if self.name is None else self.name
        if names and name not in names:
            raise ModelError(f"{self.shown}: no model {name!r}. {listed(names)}; {flag} takes the name that it uses")
        told: Mapping[str, Any] = models[names.index(name)] if names else {}
        lengths = {model["id"]: model.get("max_model_len") for model in models}
        give(
            _Served(
                name=name, api=self._api(told.get("owned_by")), is_adapter=told.get("parent") is not None,
                max_length=lengths.get(name) or lengths.get(told.get("parent")),
            )
        )  # fmt: skip

    def _api(self, owned_by: Any) -> _Api:
        named = self.settings.api if self.settings.api != "auto" else owned_by
        if named not in _APIS:
            raise ConfigError(
                f"{self.shown}: {f'says that it is {owned_by!r}' if owned_by else 'does not say what it is'}; expected "
                f"one of {', '.join(_APIS)}. Of a server that speaks like one of them, say which: --server-option "
                "api=vllm. Others, such as transformers serve, give no log-probabilities of tokens that they are sent"
            )
        return _APIS[named]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Server]:
        server = Server(
            self.url, key=os.environ.get(self.settings.api_key_env, "").strip() or None,
            timeout_seconds=self.settings.timeout_seconds, max_retries=self.settings.max_retries, requests=Pace(None),
            tokens=Pace(None), setting=f"--{self.role}-url",
        )  # fmt: skip
        try:
            async with server.client:
                yield server
        except (ExceptionGroup, RefusedError, ServerLostError) as failed:
            raise self._told(server, _first(failed)) from None
        finally:
            server.tell_retries()

    def _told(self, server: Server, error: Exception) -> Exception:
        """What the user is told of an error."""
        if isinstance(error, ServerLostError):
            return ModelError(
                f"{error} What was scored before is kept, in batches; once the server is back, the same command goes "
                "on from there, at another address too"
            )
        if not isinstance(error, RefusedError):
            return error
        flag = f"--server-option {self.role}_name"
        name = self.name if self.served is None else self.served.name
        return server.refusal(error, model=name or "", key_env=self.settings.api_key_env, names=[], setting=flag)

    async def _read_all(self, encoded: Sequence[Encoded], give: Callable[[tuple[int, Tensor]], None]) -> None:
        todo = deque(enumerate(encoded))

        async def work(server: Server) -> None:
            while todo:
                index, item = todo.popleft()
                give((index, await server.attempts(partial(self._read, server, item), what=item.name)))

        async with self._connected() as server, asyncio.TaskGroup() as group:
            for _ in range(min(self.settings.concurrency, len(todo))):
                group.create_task(work(server))

    async def _read(self, server: Server, item: Encoded) -> Tensor:
        """One attempt."""
        assert self.served is not None
        api = self.served.api
        body = api.body(item, model=self.served.name, is_adapter=self.served.is_adapter)
        try:
            answer = await server.post(api.path(self.url), body)
        except RefusedError as refused:
            if refused.status not in PROBLEM_STATUSES:
                raise
            raise ModelError(
                f"{item.name}: {self.shown} refuses it ({refused}). Leave it out if it is at fault"
            ) from None
        try:
            found = api.read(answer, item, vocab_size=self.config.get_text_config().vocab_size)
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            raise ModelError(
                f"{item.name}: {self.shown} does not answer with log-probabilities of what it was sent "
                f"({type(error).__name__}: {error}); expected vLLM's or SGLang's answer, see --server-option api"
            ) from error
        return self._checked(found, item)

    def _checked(self, found: _Answer, item: Encoded) -> Tensor:
        """(T,) if they are log-probabilities of the tokens that were sent."""
        n_sent = len(item.ids)
        for n_given in (found.n_tokens, item.n_prompt + len(found.response)):
            if n_given != n_sent:
                raise ModelError(
                    f"{item.name}: {self.shown} gives log-probabilities of {n_given} tokens, but {n_sent} were sent; a "
                    "server that shortens prompts, or reads them from a cache, cannot score"
                )
        for place, (sent, given) in enumerate(zip(item.ids[item.n_prompt :].tolist(), found.response, strict=True)):
            what = f"{item.name}: {self.shown} gives"
            if given.token != sent:
                raise ModelError(
                    f"{what} a log-probability of token {given.token} at place {place} of the response, where {sent} "
                    "was sent; it does not read the token ids that it is given"
                )
            if not isinstance(given.logprob, int | float) or not isfinite(given.logprob):
                raise NonFiniteError(
                    f"{what} {given.logprob} as the log-probability of token {place} of the response; {NOT_FINITE}"
                )
            if given.logprob > _ROUNDING:
                raise ModelError(
                    f"{what} {given.logprob:.4g} as the log-probability of token {place} of the response, which is "
                    "above 0; a server that gives logits (vLLM's --logprobs-mode raw_logits) cannot score"
                )
        return torch.tensor([float(given.logprob) for given in found.response], dtype=torch.float32)


def describe_served(source: ScorerSource, servers: Servers, *, is_own_reference: bool = False) -> Description:
    """The description of a log-ratio on servers; of an untrained model, which has no reward.json, as its own reference.

    Raises:
        ConfigError: an option of models that are loaded here, or an address is missing.
    """
    _check_options(source, servers, is_own_reference=is_own_reference)
    config = _recorded(source, is_own_reference=is_own_reference)
    about = described(
        source.source, beta=config.beta if source.beta is None else source.beta, dtype=source.options.dtype,
        splitter=config.splitter, reasoning=config.reasoning, policy=source.folder,
        reference=source.folder if source.load_reference else None, is_own_reference=is_own_reference,
    )  # fmt: skip
    has_weights = any(file for pattern in ("*.safetensors", "*.bin") for file in source.folder.glob(pattern))
    recorded = reference_of(config, source=source.source).weights_sha256 or None
    return replace(
        about,
        settings={**about.settings, "served": True, "reference_sha256": recorded if source.load_reference else None},
        weights={"policy": source.folder if has_weights else None},
    )


def load_served(source: ScorerSource, servers: Servers, *, is_own_reference: bool = False) -> LogRatio:
    """A log-ratio on servers, which are asked for what they have.

    Raises:
        ConfigError: see `describe_served`; or a server has several models, or speaks another language.
        ModelError: no server, or no such model.
        RewardMismatchError: another beta or chat template than reward.json records.
    """
    about = describe_served(source, servers, is_own_reference=is_own_reference)
    config = _recorded(source, is_own_reference=is_own_reference)
    options: LoadOptions = recorded_date(config, source.options, override=source.override)
    trust = options.trust_remote_code
    tokenizer = load_tokenizer(source.folder, trust_remote_code=trust, template_date=options.template_date)
    if is_own_reference:
        warn_of_plain_prompts(tokenizer, model=source.source)
        config = replace(config, template_sha256=template_hash(tokenizer))
    check_template(config, tokenizer, source=source.source, override=source.override)
    config = with_beta(config, source=source.source, beta=source.beta, override=source.override)
    model_config = load_config(source.folder, trust_remote_code=trust)
    policy = ServedModel(
        role="policy", url=_address(servers.policy_url), name=servers.policy_name, settings=servers,
        source=source.source, tokenizer=tokenizer, config=model_config, dtype=source.options.dtype,
        max_length=context_length(model_config),
    ).greeted()  # fmt: skip
    reference = policy if is_own_reference else None
    if source.load_reference and servers.reference_url is not None:
        reference = replace(
            policy, role="reference", url=_address(servers.reference_url), name=servers.reference_name, served=None,
            source=reference_of(config, source=source.source).source,
        ).greeted()  # fmt: skip
        policy = replace(policy, max_length=reference.max_length)
    # Which precision a server computes in is unknown, unless it is said.
    stored = source.stored_reference and source.options.dtype != "auto"
    return LogRatio(config, about, policy=policy, reference=reference, stored_reference=stored)


def _check_options(source: ScorerSource, servers: Servers, *, is_own_reference: bool) -> None:
    """Raises: ConfigError, where an option is of models that are loaded here, or an address is missing."""
    loaded = {
        "reference": source.reference, "cache": source.cache, "reference_device": source.reference_device,
        "device": source.options.device, "attention": source.options.attention,
    }  # fmt: skip
    if name := next((name for name, value in loaded.items() if value), ""):
        raise ConfigError(f"{name}: is for models that are loaded here; {servers.policy_url} has its own; leave it out")
    needs_reference = source.load_reference and not is_own_reference
    if needs_reference != (servers.reference_url is not None):
        raise ConfigError(
            "--reference-url: is missing; give the server of the reference, or score without it: --reward "
            "without-reference" if needs_reference else
            "--reference-url: no reward asked for needs a reference; leave it out"
        )  # fmt: skip


def _recorded(source: ScorerSource, *, is_own_reference: bool) -> RewardConfig:
    """The reward.json of a trained model, or what stands for it with an untrained one."""
    if not is_own_reference:
        return load_reward_config(source.folder)
    return RewardConfig(
        beta=1.0 if source.beta is None else source.beta, base=source.source, objective="none", splitter="auto",
        reference=Reference(source=portable(source.source), weights_sha256=""),
    )  # fmt: skip


def _address(url: str) -> str:
    """An address up to /v1, which may be left out where there is no path."""
    bare = url.rstrip("/")
    return f"{bare}/v1" if bare.count("/") == 2 else bare


def _first(error: Exception) -> Exception:
    """The first error of a group, which is no group itself."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
