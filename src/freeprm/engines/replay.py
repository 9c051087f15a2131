"""The `replay` engine: recorded rollouts instead of drawn ones. No model, no randomness."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from freeprm.engines.base import Request, Sampled, SamplingParams, StopReason
from freeprm.errors import ConfigError, ModelError
from freeprm.io.files import content_hash
from freeprm.io.rollouts import read_rollouts
from freeprm.types import Group, Prompt, Rollout, group_rollouts

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ReplayEngine:
    """Looks a sample up by its index and its problem's id, or by its prompt if the id is not recorded.

    Temperature, stop strings and the other parameters have no effect.
    """

    model: str
    """The record: a file of rollouts, or a run folder."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our column name -> the name in the record."""

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        """See `Engine`.

        Raises:
            ConfigError: a prefix.
            RecordError: the record cannot be read.
            ModelError: a sample is not recorded; names the problem.
        """
        if any(request.prefix for request in requests):
            raise ConfigError(
                "engine 'replay': gives responses as they were recorded, and cannot go on from the beginning of one; "
                "use an engine that draws: hf, vllm or openai"
            )
        groups = group_rollouts(read_rollouts([Path(self.model)], columns=self.columns).rollouts)
        by_id = {group.problem_id: group for group in groups}
        by_prompt = {_key(group.prompt): group for group in reversed(groups)}  # the first group of a prompt wins
        wanted = [(request, self._recorded(request, by_id, by_prompt)) for request in requests]  # fails early
        for request, rollouts in wanted:
            for index in request.sample_idxs:
                if index not in request.done:
                    yield _sampled(request.problem_id, rollouts[index])

    def identity(self) -> Mapping[str, Any]:
        """See `Engine`."""
        return {"record_sha256": content_hash(Path(self.model)), "columns": dict(self.columns)}

    def shape(self) -> None:
        """Not recorded."""
        return None

    def _recorded(
        self, request: Request, by_id: Mapping[str, Group], by_prompt: Mapping[Any, Group]
    ) -> dict[int, Rollout]:
        group = by_id.get(request.problem_id) or by_prompt.get(_key(request.prompt))
        if group is None:
            raise ModelError(
                f"problem {request.problem_id!r}: {self.model} has no rollouts of it, by id or by prompt; leave it "
                "out, or give the record that has it"
            )
        if _key(group.prompt) != _key(request.prompt):
            raise ModelError(
                f"problem {request.problem_id!r}: {self.model} has another prompt under this id; expected the same "
                "one. Problems from different sources need different ids"
            )
        rollouts = {rollout.sample_idx: rollout for rollout in group.rollouts}
        missing = [index for index in request.sample_idxs if index not in rollouts]
        if missing:
            raise ModelError(
                f"problem {request.problem_id!r}: sample {missing[0]} is not recorded; {self.model} has "
                f"{len(rollouts)} samples of it, from {min(rollouts)} to {max(rollouts)}. Ask for fewer samples a "
                "problem"
            )
        return rollouts


def _sampled(problem_id: str, rollout: Rollout) -> Sampled:
    extra = rollout.extra
    reason = extra.get("stop_reason")
    fits = reason in get_args(StopReason) and (reason in ("length", "context", "abandoned")) == rollout.truncated
    return Sampled(
        problem_id=problem_id,
        sample_idx=rollout.sample_idx,
        text=rollout.response,
        stop_reason=cast(StopReason, reason) if fits else "length" if rollout.truncated else "end",
        token_ids=_numbers(extra.get("token_ids"), int),
        n_prompt_tokens=_count(extra.get("n_prompt_tokens")),
        n_generated_tokens=_count(extra.get("n_generated_tokens")),
        token_logprobs=_numbers(extra.get("token_logprobs"), float),
        logprobs_of=extra.get("logprobs_of"),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbers(value: Any, kind: type[T]) -> tuple[T, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(item, kind) for item in value) else None


def _key(prompt: Prompt) -> Any:
    """Equal for equal prompts, and hashable."""
    return prompt if isinstance(prompt, str) else tuple(tuple(sorted(message.items())) for message in prompt)


PLUGIN = ReplayEngine
