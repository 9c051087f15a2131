"""Prompt and response as token ids, with the characters that each response token covers.

One tokenisation of the one full string: prefixes are never tokenised again and the text is never
rewritten, so step boundaries are found by offsets alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.core.steps import answer_start
from freeprm.errors import DataError, ModelError
from freeprm.models.prompts import Around, around, ends_of, render_prompt, rendered_text, starts_with_bos
from freeprm.types import Rollout, Span

Ints = NDArray[np.int32]
TooLong = Literal["error", "exclude", "truncate"]
_CHUNK = 512  # texts tokenised at a time: the tokenizer's lists take 15 times the memory of what is kept of them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """One prompt and response as a model reads them; 12 bytes a token, because training holds all of them."""

    name: str
    """The response, for messages: `problem 'p7', sample 3`."""
    ids: Ints
    """Prompt and response tokens, with one end-of-turn token unless the response is truncated."""
    n_prompt: int
    """Leading ids that belong to the prompt; at least 1."""
    n_reasoning: int = 0
    """Of these, the response's own: reasoning that is read and not rewarded; see `answers`."""
    offsets: Ints
    """(T, 2) first character of the response that each of its tokens covers, and the one after its last."""

    @property
    def n_response(self) -> int:
        """T, the response's tokens."""
        return len(self.ids) - self.n_prompt

    def cut(self, n_tokens: int) -> Self | None:
        """The first tokens of it; None where the prompt alone takes as many."""
        if self.n_prompt >= n_tokens:
            return None
        return replace(self, ids=self.ids[:n_tokens], offsets=self.offsets[: n_tokens - self.n_prompt])

    @property
    def spans(self) -> tuple[Span, ...]:
        """(T,) the same as spans, without gaps; tokens of one character share it; an end-of-turn token's is empty."""
        return tuple(Span(start, stop) for start, stop in self.offsets.tolist())


class Fitting(Protocol):
    """Whatever a model reads of one response."""

    @property
    def name(self) -> str:
        """The response, for messages."""
        ...

    @property
    def ids(self) -> Ints:
        """(L,)"""
        ...

    def cut(self, n_tokens: int) -> Self | None:
        """The first tokens of it; None where nothing is left to be read."""
        ...


Item = TypeVar("Item", bound=Fitting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted(Generic[Item]):
    """Which responses fit the model's context."""

    kept: list[int]
    """Indices of the responses kept, in order."""
    encoded: list[Item]
    counts: Counter[str]
    """Responses that were `excluded` or `truncated` for length."""


def encode(tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout]) -> list[Encoded]:
    """Encode each response after its prompt; equal ones near each other are tokenised once.

    A token that straddles the boundary of prompt and response belongs to the response. A tag of reasoning that the
    chat template opens is the prompt's, also where the response repeats it, see `prompts.around`: its characters then
    go with the response's first token.

    Raises:
        ModelError: the tokenizer gives no offsets, or the prompt has no token to predict the response from.
    """
    if not rollouts:
        return []
    if not tokenizer.is_fast:
        raise ModelError(f"{tokenizer.name_or_path}: a tokenizer without offsets; expected a fast one (tokenizer.json)")
    ends = ends_of(tokenizer)
    bos = (tokenizer.bos_token_id,) if not tokenizer.chat_template and starts_with_bos(tokenizer) else ()
    encoded: list[Encoded] = []
    for start in range(0, len(rollouts), _CHUNK):
        part = rollouts[start : start + _CHUNK]
        said = [
            (
                around(head, rollout.response, truncated=rollout.truncated, ends=ends),
                rollout.response,
                () if rendered_text(rollout.prompt) is not None else bos,
            )
            for head, rollout in zip(_heads(tokenizer, part), part, strict=True)
        ]
        first = dict(zip(reversed(said), reversed(part), strict=True))
        texts = [placed.head + response[placed.n_opened :] + placed.end for placed, response, _ in first]
        batch = tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        parts = zip(first.items(), texts, batch["input_ids"], batch["offset_mapping"], strict=True)
        known = {
            key: _encoded(rollout, key[0], text, key[2], ids, offsets) for (key, rollout), text, ids, offsets in parts
        }
        encoded += [
            known[key] if first[key] is rollout else replace(known[key], name=_name(rollout))
            for key, rollout in zip(said, part, strict=True)
        ]
    return encoded


def check_vocabulary(encoded: Sequence[Encoded], config: PreTrainedConfig, *, model: str) -> None:
    """Refuse tokens that a model, of this configuration and name, has no embedding for.

    Raises:
        ModelError: names the first response with such a token.
    """
    size = config.get_text_config().vocab_size
    for item in encoded:
        if item.ids.size and (largest := int(item.ids.max())) >= size:
            raise ModelError(
                f"{item.name}: token {largest} is beyond the {size} that {model} has embeddings for. Its tokenizer is "
                "another model's, or has tokens added for which the model was not resized: "
                "model.resize_token_embeddings(len(tokenizer)), and train them, or take the tokens out"
            )


def fit(encoded: Sequence[Item], *, max_length: int, too_long: TooLong) -> Fitted[Item]:
    """Deal with responses that do not fit `max_length` tokens: refuse, leave out, or cut; never in silence.

    A cut response loses its end-of-turn token too. One of which nothing is left is left out.

    Raises:
        DataError: with "error", names the first that does not fit.
    """
    fitted: Fitted[Item] = Fitted(kept=[], encoded=[], counts=Counter())
    for index, item in enumerate(encoded):
        part: Item | None = item
        if len(item.ids) > max_length:
            if too_long == "error":
                raise DataError(
                    f"{item.name}: {len(item.ids)} tokens with its prompt, but {max_length} are allowed; "
                    "choose 'exclude' or 'truncate' for responses that are too long"
                )
            part = item.cut(max_length) if too_long == "truncate" else None
            fitted.counts["excluded: longer than the context" if part is None else "truncated to the context"] += 1
        if part is not None:
            fitted.kept.append(index)
            fitted.encoded.append(part)
    return fitted


def answers(encoded: Sequence[Encoded], responses: Sequence[str]) -> Fitted[Encoded]:
    """Responses from their answer on; the reasoning before it becomes a part of what they answer to.

    Args:
        encoded: B responses, whole.
        responses: their texts.

    Returns:
        Those that have an answer; the others are counted.
    """
    fitted: Fitted[Encoded] = Fitted(kept=[], encoded=[], counts=Counter())
    for index, (item, response) in enumerate(zip(encoded, responses, strict=True)):
        start = answer_start(response)
        if start is None or not response[start:].strip():
            fitted.counts["excluded: reasoning without an answer behind it"] += 1
            continue
        n_before = sum(1 for first, stop in item.offsets.tolist() if stop <= start and first < stop)
        # A token of whitespace and a word belongs to what its word belongs to.
        fitted.kept.append(index)
        fitted.encoded.append(
            replace(
                item, n_prompt=item.n_prompt + n_before, n_reasoning=n_before,
                offsets=np.maximum(item.offsets[n_before:], start),
            )
        )  # fmt: skip
    return fitted


def _heads(tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout]) -> Iterator[str]:
    """The text before each response; responses to one prompt mostly stand together, and share the work."""
    prompt, head = None, ""
    for rollout in rollouts:
        if rollout.prompt != prompt:
            prompt, head = rollout.prompt, render_prompt(tokenizer, rollout.prompt)
        yield head


def _encoded(
    rollout: Rollout, placed: Around, text: str, bos: Sequence[int], ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
) -> Encoded:  # fmt: skip
    """Args: `text` is the whole of what `ids` and `offsets` are of."""
    name = _name(rollout)
    start = len(placed.head)
    tiles = _without_gaps(np.array(offsets, dtype=np.int32).reshape(-1, 2), text)
    inside = tiles[:, 1] > start
    n_prompt = int(inside.argmax()) if inside.any() else len(ids)
    if n_prompt + len(bos) == 0:
        raise ModelError(
            f"{name}: the prompt is empty and the tokenizer has no beginning-of-sequence token; nothing predicts the "
            "response's first token"
        )
    tiles = tiles[n_prompt:] - start + placed.n_opened
    if placed.n_opened:
        tiles[0, 0] = 0
    return Encoded(
        name=name,
        ids=np.array([*bos, *ids], dtype=np.int32),
        n_prompt=n_prompt + len(bos),
        offsets=np.clip(tiles, 0, len(rollout.response)),
    )


def _name(rollout: Rollout) -> str:
    return f"problem {rollout.problem_id!r}, sample {rollout.sample_idx}"


def _without_gaps(offsets: Ints, text: str) -> Ints:
    """(L, 2) offsets that leave no character of the text out.

    Some tokenizers trim spaces off a token's offsets: they are given back to it. What a normaliser joined with the
    character before it, as an accent, goes with that character.
    """
    firsts, stops = offsets[:, 0], offsets[:, 1]
    for index in np.flatnonzero(firsts[1:] > stops[:-1]):
        before, after = int(stops[index]), int(firsts[index + 1])
        if text[before:after].isspace():
            firsts[index + 1] = before
        else:
            stops[index] = after
    if len(offsets):
        firsts[0], stops[-1] = 0, len(text)
    return offsets
