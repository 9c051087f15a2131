"""Saved answers of a server that scores texts, and the responses that they belong to.

    {"id", "object": "list", "model", "data": [{"index", "object": "pooling", "data": [[p, q], ...]}, ...], "usage"}
    {"id", "object": "list", "model", "data": [{"index", "label", "probs": [p, q], "num_classes"}, ...], "usage"}
    {"id", "object": "list", "model", "data": [{"index", "object": "score", "score": x}, ...], "usage"}
    {"custom_id", "response": {"status_code": 200, "body": one of these}, "error": null}

An answer has an item for each text of its request. With `custom_id` it names its responses; a file of answers without
is in the order of all responses.

Source: vllm-project/vllm, vllm/entrypoints/pooling/{pooling,classify,scoring}/protocol.py, and run_batch.py for rows
with `custom_id`, which are OpenAI's batch format.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from freeprm.core.selectors import named
from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.io.rows import Row, Source
from freeprm.types import Rollout

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


class Answer(NamedTuple):
    """The answer to a request."""

    source: Source | None
    """For messages; None in a rollout's own row."""
    custom_id: str | None
    items: Sequence[Any]
    """One for each text of the request, in order; none if it failed."""
    model: str | None
    error: str | None
    """Why it failed, or None."""


class Matched(NamedTuple):
    """One item and its sample."""

    rollout: Rollout
    outputs: Any
    answer: Answer


def answer_of(row: Row, source: Source | None) -> Answer:
    """A row or a value as an answer.

    Raises:
        RecordError: it is no answer, its items are not numbered from 0, or have numbers for each token.
    """
    custom_id = None if row.get("custom_id") is None else str(row["custom_id"])
    response = row.get("response") if custom_id is not None else None
    status = response.get("status_code") if isinstance(response, Mapping) else None
    body = response.get("body") if isinstance(response, Mapping) else row
    body = body if isinstance(body, Mapping) else {}
    error = row.get("error") or body.get("error") or (body if body.get("object") == "error" else None)
    if error or (isinstance(status, int) and status >= 400):
        return Answer(source, custom_id, (), None, _message(error, status))
    if not isinstance(body.get("data"), list):
        raise _wrong(
            source,
            f"has {', '.join(map(str, body)) or 'no body'}; expected an answer of /pooling, /classify or /score with "
            "its list `data`, which stands below response.body in rows with custom_id",
            reason="no answer of a server",
        )
    model = body.get("model")
    items = _in_order(body["data"], source)
    _refuse_tokens(items, body.get("usage"), source)
    return Answer(source, custom_id, items, model if isinstance(model, str) else None, None)


def by_id(
    answers: Iterable[Answer], rollouts: Sequence[Rollout], *, template: str
) -> tuple[list[Matched], list[DataError]]:
    """Each item with the sample of its answer's `custom_id`, and the errors of the others.

    Args:
        answers: with `custom_id`.
        rollouts: the samples, each once.
        template: of ids, e.g. "{problem_id}/{sample_idx}", with any columns. An id shared by several samples
            (`{problem_id}`) is for all of them, in order of `sample_idx`.

    Raises:
        ConfigError: the template names a column that a row lacks, or makes one id for two problems.
    """
    samples: dict[str, list[Rollout]] = {}
    for rollout in sorted(rollouts, key=lambda item: item.sample_idx):
        of_id = samples.setdefault(_id(rollout, template), [])
        if of_id and of_id[0].problem_id != rollout.problem_id:
            raise ConfigError(f"id: {template!r} makes the same id of {named(of_id[0])} and {named(rollout)}")
        of_id.append(rollout)
    matched, flaws, seen = [], [], dict[str, Source | None]()
    for answer in answers:
        assert answer.custom_id is not None
        if answer.error is not None:
            continue
        owners, flaw = samples.get(answer.custom_id), ""
        if owners is None:
            like = next(iter(samples))
            flaw = f"is no response's; ids are made like {like!r}, or as id=TEMPLATE says"
        elif answer.custom_id in seen:
            flaw = f"is already at {seen[answer.custom_id]}; expected one answer a request"
        elif len(owners) != len(answer.items):
            flaw = f"is the id of {len(owners)} responses, but has {len(answer.items)} items"
        else:
            seen[answer.custom_id] = answer.source
            matched += [Matched(sample, item, answer) for sample, item in zip(owners, answer.items, strict=True)]
        if flaw:
            flaws.append(DataError(f"{answer.source}: custom_id: {answer.custom_id!r} {flaw}"))
    return matched, flaws


def in_order(answers: Sequence[Answer], rollouts: Sequence[Rollout]) -> list[Matched]:
    """Each item with the sample at the same position; a failed request stands for one text.

    Raises:
        DataError: there are not as many items as samples, or a failed request may have had several texts.
    """
    failed = any(answer.error is not None for answer in answers)
    if failed and any(len(answer.items) > 1 for answer in answers):
        raise DataError(
            f"{answers[0].source}: some answers are for several texts and some requests failed, so that it cannot be "
            "told which response an answer is for; give requests a custom_id"
        )
    items = [(item, answer) for answer in answers for item in (answer.items if answer.error is None else (None,))]
    if len(items) != len(rollouts):
        raise DataError(
            f"{answers[0].source}: {len(items)} answers for {len(rollouts)} responses; answers without custom_id are "
            "taken in the order of the responses, so there must be one for each"
        )
    pairs = zip(rollouts, items, strict=True)
    return [Matched(rollout, item, answer) for rollout, (item, answer) in pairs if answer.error is None]


def failures(answers: Iterable[Answer]) -> Counter[str]:
    """Counts of failed requests, by error."""
    return Counter(f"failed request: {answer.error}" for answer in answers if answer.error is not None)


def alike(message: str) -> str:
    """The message without numbers, so that equal failures are counted together."""
    return _NUMBER.sub("N", message)


def _id(rollout: Rollout, template: str) -> str:
    try:
        return template.format_map(
            {**rollout.extra, "problem_id": rollout.problem_id, "sample_idx": rollout.sample_idx}
        )
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"id: {template!r} cannot be made of {named(rollout)} ({error!r}); expected columns in braces, such as "
            "{problem_id}/{sample_idx}"
        ) from error


def _in_order(items: Sequence[Any], source: Source | None) -> list[Any]:
    """Items sorted by their `index`."""
    indices = [item.get("index") if isinstance(item, Mapping) else None for item in items]
    if sorted(index for index in indices if isinstance(index, int)) != list(range(len(items))):
        raise _wrong(
            source,
            f"data: its items have the indices {str(indices)[:80]}; expected 0 to {len(items) - 1}, each once",
            reason="data is not numbered from 0",
        )
    return sorted(items, key=lambda item: item["index"])


def _refuse_tokens(items: Sequence[Any], usage: Any, source: Source | None) -> None:
    n_tokens = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    outputs = [item.get("data") for item in items]
    if not all(isinstance(output, list) and output and isinstance(output[0], list) for output in outputs):
        return
    if sum(map(len, outputs)) == n_tokens:
        raise _wrong(
            source,
            f"data: has numbers for each of {n_tokens} tokens, not for each step; serve the model with pooling_type "
            "STEP and its step_tag_id",
            reason="data has numbers for each token",
        )


def _message(error: Any, status: Any) -> str:
    """The error in one line."""
    inner = error.get("error", error) if isinstance(error, Mapping) else error
    message = inner.get("message") if isinstance(inner, Mapping) else inner
    return alike(str(message or f"status {status}").partition("\n")[0][:120])


def _wrong(source: Source | None, message: str, *, reason: str) -> RecordError:
    return RecordError(f"{source}: {message}" if source else message, reason=reason)
